import FormatEngine
import TestSupport
import Testing

/// A sound image that is to be damaged, and the files that it needs.
struct SoundImage: Sendable {
  /// The file with the tables.
  var bytes: [UInt8]
  var format: any ImageFormat.Type
  var isBigEndian = false
  /// The disk below.
  var below: [UInt8]?
  var passphrase: String?
  /// Where tables are that wrong entries may be read out of; of formats that refuse to, none.
  var tables: [Range<Int>] = []
  /// Other files, by their names.
  var others: [String: [UInt8]] = [:]
  /// Files that the layer opens by itself, by their roles: names in `others`.
  var roles: [String: String] = [:]
  /// Where the file with the tables is only an extent: the file that is opened, and the extent's name and role.
  var extent: (descriptor: [UInt8], name: String, role: String)?

  /// The format's name.
  var formatName: String { format.name }
}

/// The files of an image in memory, with the one that has the tables as it may be damaged.
final class MemoryFiles: Sendable {
  private let image: SoundImage
  private let main: any ByteStore
  private let others: [String: MemoryStore]

  init(_ image: SoundImage, _ main: any ByteStore) {
    self.image = image
    self.main = main
    others = image.others.mapValues { MemoryStore($0) }
  }

  /// `isForInspection`: as `check` opens images.
  func open(_ access: FileAccess, isForInspection: Bool = false) throws(EngineError) -> ImageChain {
    var files: [String: NamedStore] = [:]
    for (role, name) in image.roles {
      if let store = others[name] { files[role] = NamedStore(role: role, path: name, store: store) }
    }
    var opened: any ByteStore = main
    if let extent = image.extent {
      opened = MemoryStore(extent.descriptor)
      files[extent.role] = NamedStore(role: extent.role, path: extent.name, store: main)
    }
    let chain = try ImageChain.over(
      opened, format: image.format, access: access, path: "image", isForInspection: isForInspection,
      passphrase: isForInspection ? nil : image.passphrase, files: files)
    guard let below = image.below else { return chain }
    let base = try ImageChain.over(MemoryStore(below), format: RawFormat.self)
    return ImageChain(members: chain.members + base.members, access: access)
  }
}

/// A kind of image whose damage is looked for.
struct RepairSubject: Sendable, CustomTestStringConvertible {
  var name: String
  /// The judge reads such images as they are meant, and has a check for them.
  var isJudged = true
  /// Both count the same where a kind of damage does not say otherwise.
  var isCountedByJudge = true
  var isWritable = true
  /// The format has no way to use room in the middle of the file again: it stays leaked.
  var keepsLeaks = false
  var make: @Sendable (inout SeededRandom) throws -> SoundImage
  /// What can be damaged in this one.
  var damages: @Sendable (SoundImage) -> [DamageKind]

  var testDescription: String { name }

  /// Images that were made before.
  private static let made = Guarded<[String: SoundImage]>([:])

  /// The image of a seed; the same one for the same seed.
  func image(_ seed: UInt64) throws -> SoundImage {
    let key = "\(name) \(seed)"
    if let known = Self.made.withLock({ $0[key] }) { return known }
    var random = SeededRandom(seed: seed)
    let image = try make(&random)
    Self.made.withLock { $0[key] = image }
    return image
  }

  /// The kinds of damage that earlier subjects of the same format have.
  func earlierKinds(_ seed: UInt64) -> Set<String> {
    let format = name.prefix { $0 != "," }
    return Self.all.prefix { $0.name != name }.filter { $0.name.hasPrefix("\(format),") }
      .reduce(into: []) { result, other in
        guard let image = try? other.image(seed) else { return }
        result.formUnion(other.damages(image).map(\.name))
      }
  }

  static let all: [RepairSubject] =
    qcow2 + qcow + qed + vdi + vpc + vhdx + parallels + vmdk + vmdkServers
}

extension SoundImage {
  /// An image that the judge makes and fills.
  static func judged(
    _ recipe: JudgeImage, isBigEndian: Bool, _ random: inout SeededRandom
  ) throws -> SoundImage {
    guard let format = FormatCatalog.format(named: recipe.format) else { throw TestFailure("No such format") }
    return try TemporaryFolder.with { folder in
      let path = try recipe.make("image", in: folder, random: &random)
      var image = SoundImage(
        bytes: try Files.read(path), format: format, isBigEndian: isBigEndian, passphrase: recipe.passphrase)
      for name in try folder.names() where name != "image" {
        image.others[name] = try Files.read(folder.file(name))
        if name == "image.data" { image.roles["data-file"] = name }
      }
      if recipe.hasShortRawBase { image.below = image.others["base.raw"] }
      return image
    }
  }
}
