import FormatEngine
import TestSupport
import Testing

/// One kind of image that every promise of the engine is held to.
struct ConformanceRow: Sendable, CustomTestStringConvertible {
  enum Maker: Sendable {
    /// Our own `create` with these options, then our own writes.
    case engine(options: [String: String], baseSize: Int?)
    case judge(JudgeImage)
    /// A format that nobody here writes: the tests put its bytes together.
    case built(@Sendable (inout SeededRandom) throws -> BuiltImage)
  }

  var name: String
  var format: String
  var size: Int
  var maker: Maker
  /// Whether the engine can change such an image.
  var isWritable: Bool
  /// Of an encrypted image.
  var passphrase: String?
  /// Whether the judge reads such images as they are meant.
  var isJudged = true
  /// Whether its first bytes tell the format.
  var isProbed = true
  /// Formats that are known by the file's name want another one.
  var fileName = "image"
  /// The one file that holds tables and data, where the opened file only describes it; and its role.
  var extentFile: (name: String, role: String)?

  var testDescription: String { name }

  /// Whether the judge's `check` knows the format.
  var isCheckedByJudge: Bool { !["raw", "qcow"].contains(format) }

  static let formatsOverTheirOwn: Set<String> = ["vmdk", "vhdx"]

  /// Whether one file holds all tables and data.
  var isOneFile: Bool {
    if extentFile != nil { return true }
    func names(_ option: String) -> Bool {
      option.hasPrefix("data_file") || option.hasSuffix("Flat") || option.hasSuffix("ExtentSparse")
    }
    return switch maker {
    case .engine(let options, _): !options.contains { names($0.key) || names($0.value) }
    case .judge(let recipe): !recipe.options.contains(where: names)
    case .built: true
    }
  }

  /// One row of each kind that matters above the formats: what format it is, whether it lies over another, is
  /// encrypted, packed by others, or lies in several files.
  static let oneOfEachKind: [ConformanceRow] = {
    var seen: Set<String> = []
    return all.filter { row in
      let kind =
        "\(row.format) \(row.liesOverAnother) \(row.passphrase == nil) \(row.isOneFile) \(row.isWritable)"
      return seen.insert(kind).inserted
    }
  }()

  var formatType: any ImageFormat.Type {
    get throws {
      guard let type = FormatCatalog.format(named: format) else { throw TestFailure("No format '\(format)'") }
      return type
    }
  }
}

/// The bytes of an image, and of the disk in it.
struct BuiltImage: Sendable {
  var file: [UInt8]
  var disk: [UInt8]
  /// Whether the judge can read it.
  var isJudged = true
  /// Files that it needs, by their names, and the disk below it.
  var others: [String: [UInt8]] = [:]
  var below: [UInt8]?
}

/// An image of a row on disk, and what it must read like.
struct Fixture {
  var row: ConformanceRow
  var path: String
  var model: ModelDisk
  /// What lies below the top file.
  var below: ModelDisk?
  var folder: TemporaryFolder
  /// How the image is opened.
  var cache = CacheMode.writeback

  func open(_ access: FileAccess = .readOnly) throws(EngineError) -> ImageChain {
    var options = OpenOptions(format: row.format, access: access)
    options.cache = cache
    if let passphrase = row.passphrase { options.use(passphrase: passphrase) }
    return try ImageOpener.open(path, options)
  }

  /// The file with the tables.
  var tablesPath: String { row.extentFile.map { folder.file($0.name) } ?? path }

  /// The top image alone, with `store` as the file with the tables.
  func openAlone(_ store: any ByteStore, _ access: FileAccess = .readOnly) throws -> ImageChain {
    guard let extent = row.extentFile else {
      return try ImageChain.over(
        store, format: try row.formatType, access: access, path: path, passphrase: row.passphrase)
    }
    return try ImageChain.over(
      MemoryStore(try Files.read(path)), format: try row.formatType, access: access, path: path,
      files: [extent.role: NamedStore(role: extent.role, path: tablesPath, store: store)])
  }

  /// What the judge says of the image in the folder; where it cannot read such images, what our own check says.
  func verdict() throws -> ReferenceTool.Verdict {
    guard !row.isJudged else {
      return try ReferenceTool.check(
        path, format: row.format, folder: folder.path, passphrase: row.passphrase)
    }
    let layer = try open(.readWrite).top as? any Checkable
    let report = try layer?.check(progress: .none) ?? CheckReport()
    return ReferenceTool.Verdict(
      corruptions: Int(report.corruptions), leaks: Int(report.leaks), checkErrors: Int(report.checkErrors),
      text: report.findings.joined(separator: "\n"))
  }

  /// What the top file alone reads like.
  func modelAlone() throws -> ModelDisk {
    below == nil ? model : ModelDisk(try openAlone(MemoryStore(try Files.read(tablesPath))).readAll())
  }
}

extension ConformanceRow {
  /// Files of fixtures that were made before, so that each is made once in a run.
  private static let made = Guarded<[String: [String: [UInt8]]]>([:])

  /// Runs `body` with an image of this row in a folder of its own.
  func withFixture<T>(_ body: (Fixture) throws -> T) throws -> T {
    let files = try files()
    return try TemporaryFolder.with { folder in
      for (name, bytes) in files where !name.hasPrefix("model") { try folder.write(bytes, to: name) }
      let model = ModelDisk(files["model"] ?? [])
      return try body(
        Fixture(
          row: self, path: folder.file(fileName), model: model,
          below: files["model-below"].map { ModelDisk($0) },
          folder: folder))
    }
  }

  private func files() throws -> [String: [UInt8]] {
    if let known = Self.made.withLock({ $0[name] }) { return known }
    let files = try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 2026)
      switch maker {
      case .judge(let recipe): _ = try recipe.make("image", in: folder, random: &random)
      case .engine(let options, let baseSize):
        try EngineImage(
          format: format, size: size, options: options, baseSize: baseSize, passphrase: passphrase
        ).make(in: folder, &random)
      case .built(let build): return try collect(try build(&random), in: folder)
      }
      return try collect(folder)
    }
    Self.made.withLock { $0[name] = files }
    return files
  }

  /// An image that was put together, and what it was made of; the judge reads the same, if it can read it.
  private func collect(_ built: BuiltImage, in folder: TemporaryFolder) throws -> [String: [UInt8]] {
    for (name, bytes) in built.others { try folder.write(bytes, to: name) }
    let path = try folder.write(built.file, to: fileName)
    if built.isJudged {
      let content = try ReferenceTool.content(of: path, format: format, in: folder)
      guard content == built.disk else { throw TestFailure("\(name): the judge reads something else") }
    }
    var files = built.others
    files[fileName] = built.file
    files["model"] = built.disk
    files["model-below"] = built.below
    return files
  }

  /// All files that were made, and what the judge reads of them.
  private func collect(_ folder: TemporaryFolder) throws -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    let model =
      isJudged
      ? try ReferenceTool.content(
        of: folder.file("image"), format: format, in: folder, passphrase: passphrase)
      : try ImageOpener.open(folder.file("image"), OpenOptions(format: format)).readAll()
    for name in try folder.names() { files[name] = try Files.read(folder.file(name)) }
    var options = OpenOptions(format: format)
    options.isForInspection = true
    if let backing = try ImageOpener.open(folder.file("image"), options).members.dropFirst().first {
      files["model-below"] = try ReferenceTool.content(
        of: backing.path, format: backing.formatName, in: folder)
    }
    files["model"] = model
    return files
  }
}

/// An image that our own engine makes and fills.
struct EngineImage {
  var format: String
  var size: Int
  var options: [String: String]
  var baseSize: Int?
  var passphrase: String?

  func make(in folder: TemporaryFolder, _ random: inout SeededRandom) throws {
    let path = folder.file("image")
    guard let type = FormatCatalog.format(named: format) as? any CreatableFormat.Type else {
      throw TestFailure("\(format) cannot be created")
    }
    var values = OptionValues(type.createOptions)
    for (name, text) in options { try values.set(name, to: text) }
    var backing: BackingReference?
    if let baseSize {
      // Formats that record what their parent is take none but their own kind.
      let kind = ConformanceRow.formatsOverTheirOwn.contains(format) ? format : "raw"
      try ReferenceTool.makeBase("base.\(kind)", kind, random.bytes(baseSize), in: folder)
      backing = BackingReference(name: "base.\(kind)", format: kind)
    }
    var request = CreateRequest(
      path: path, virtualSize: UInt64(size), backing: backing, options: values, references: ReferenceOpener())
    var open = OpenOptions(format: format, access: .readWrite)
    if let passphrase {
      open.use(passphrase: passphrase)
      request.secrets = open.secrets
    }
    let file = try FileStore.create(path, cache: .unflushed)
    try type.create(on: file, request)
    file.unlock()
    open.cache = .unflushed
    let chain = try ImageOpener.open(path, open)
    let unit = max(Int(chain.top.clusterSize), 4096)
    for _ in 0..<24 {
      let range = random.range(in: size, most: max(3 * unit, 96 * 1024), unit: unit)
      switch random.below(8) {
      case 0, 1: try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
      case 2: try chain.discard(at: UInt64(range.lowerBound), count: UInt64(range.count))
      case 3: try chain.writeBytes(random.bytes(range.count), at: UInt64(range.lowerBound))
      default: try chain.writeBytes(random.fill(range.count), at: UInt64(range.lowerBound))
      }
    }
    try chain.close()
  }
}
