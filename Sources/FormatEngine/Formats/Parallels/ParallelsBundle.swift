/// What a `DiskDescriptor.xml` says: which files a disk consists of, and how its snapshots follow each other
/// (docs/interop/prl-xml.rst).
struct ParallelsBundle {
  /// A piece of the disk, with a file of its own for each snapshot.
  struct Storage {
    /// Guest bytes.
    var range: Range<UInt64>
    /// Bytes of a cluster of its expanding images.
    var clusterSize: UInt64
    /// By their GUIDs.
    var images: [String: Image]
  }

  struct Image {
    enum Kind: String {
      /// An expanding image.
      case expanding = "Compressed"
      /// The bytes as they are.
      case plain = "Plain"
    }
    var kind: Kind
    /// Relative to the folder of the descriptor unless absolute.
    var file: String
  }

  /// In the order of the disk, without gaps.
  var storages: [Storage]
  /// The GUID of the snapshot that each one was made over.
  var parents: [String: String]
  /// Of the images that the guest writes to.
  var topGUID: String

  var virtualSize: UInt64 { storages.last?.range.upperBound ?? 0 }

  static let rootElement = "Parallels_disk_image"
  private static let noGUID = "{00000000-0000-0000-0000-000000000000}"
  private static let defaultTopGUID = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
  /// Pieces of 2 GiB, as Parallels splits disks: 8 TiB.
  private static let maximumStorageCount = 4096
  /// Descriptors have some KiB; 1000 snapshots of a disk in 10 pieces stay below 4 MiB.
  static let maximumByteCount = 4 * Int(MiB)

  /// Whether a file that begins with `head` is a descriptor.
  static func probe(_ head: RawSpan) -> Bool {
    guard let text = try? head.text(in: 0..<head.byteCount),
      text.unicodeScalars.first(where: { !$0.properties.isWhitespace && $0 != "\u{feff}" }) == "<"
    else { return false }
    return text.contains("<" + rootElement)
  }

  static func read(from file: any ByteStore) throws(EngineError) -> ParallelsBundle {
    let byteCount = try file.byteCount()
    guard byteCount <= maximumByteCount else {
      throw EngineError(.tooLarge, "A disk descriptor of \(byteCount) bytes is too large")
    }
    let bytes = try file.bytes(at: 0, count: Int(byteCount))
    return try ParallelsBundle(try XMLElement.parse(bytes))
  }

  init(_ root: XMLElement) throws(EngineError) {
    guard root.name == Self.rootElement else {
      throw EngineError(.notThisFormat, "Image not in Parallels format")
    }
    let version = root.attributes["Version"] ?? ""
    guard version == "1.0" else {
      throw .unsupported("Disk descriptors of version '\(version)' are not supported")
    }
    guard let parameters = root.child("Disk_Parameters") else {
      throw .corrupt("The disk descriptor has no Disk_Parameters")
    }
    try Self.requireSupported(parameters)
    storages = try Self.storages(root, byteCount: try Self.byteCount("Disk_size", of: parameters))
    let snapshots = root.child("Snapshots")
    parents = [:]
    for shot in snapshots?.children("Shot") ?? [] {
      let guid = try Self.guid("GUID", of: shot)
      let parent = shot.child("ParentGUID") == nil ? Self.noGUID : try Self.guid("ParentGUID", of: shot)
      if parent != Self.noGUID { parents[guid] = parent }
    }
    let images = storages.first?.images ?? [:]
    if let top = snapshots?.child("TopGUID") {
      topGUID = Self.normalised(top.text)
    } else if images[Self.defaultTopGUID] == nil, images.count == 1, let only = images.keys.first {
      topGUID = only
    } else {
      topGUID = Self.defaultTopGUID
    }
  }

  private static func requireSupported(_ parameters: XMLElement) throws(EngineError) {
    if let padding = parameters.child("Padding"), try number(padding) != 0 {
      throw .unsupported("Disks with padding are not supported")
    }
    if let sector = parameters.child("LogicSectorSize"), try number(sector) != 512 {
      throw .unsupported("Disks with sectors of \(try number(sector)) bytes are not supported")
    }
    let engine = parameters.child("Encryption")?.child("Engine").map { normalised($0.text) } ?? ""
    guard engine.isEmpty || engine == noGUID else {
      throw .unsupported("The disk is encrypted, by engine \(engine); encrypted bundles are not supported")
    }
  }

  private static func storages(_ root: XMLElement, byteCount: UInt64) throws(EngineError) -> [Storage] {
    let elements = root.child("StorageData")?.children("Storage") ?? []
    guard !elements.isEmpty else { throw .corrupt("The disk descriptor has no Storage") }
    guard elements.count <= maximumStorageCount else {
      throw EngineError(.tooLarge, "The disk consists of more than \(maximumStorageCount) storages")
    }
    var storages: [Storage] = []
    for element in elements { storages.append(try storage(element)) }
    storages.sort { $0.range.lowerBound < $1.range.lowerBound }
    var end: UInt64 = 0
    for storage in storages {
      guard storage.range.lowerBound == end else {
        throw .corrupt("The storages of the disk leave a gap, or overlap, at sector \(end / 512)")
      }
      end = storage.range.upperBound
    }
    guard end == byteCount else {
      throw .corrupt("The storages end at sector \(end / 512), the disk at \(byteCount / 512)")
    }
    return storages
  }

  private static func storage(_ element: XMLElement) throws(EngineError) -> Storage {
    let start = try byteCount("Start", of: element)
    let end = try byteCount("End", of: element)
    guard start < end else { throw .corrupt("A storage ends at sector \(end / 512), before it begins") }
    var images: [String: Image] = [:]
    for image in element.children("Image") {
      let type = image.child("Type").map { trimmed($0.text) } ?? ""
      guard let kind = Image.Kind(rawValue: type) else {
        throw .unsupported("Images of type '\(type)' are not supported")
      }
      let guid = try guid("GUID", of: image)
      let file = image.child("File").map { trimmed($0.text) } ?? ""
      guard images.updateValue(Image(kind: kind, file: file), forKey: guid) == nil else {
        throw .corrupt("A storage has two images \(guid)")
      }
    }
    return Storage(
      range: start..<end, clusterSize: try byteCount("Blocksize", of: element), images: images)
  }

  // MARK: Text of elements

  /// Sectors, in bytes.
  private static func byteCount(_ name: String, of element: XMLElement) throws(EngineError) -> UInt64 {
    guard let child = element.child(name) else {
      throw .corrupt("The disk descriptor has a \(element.name) without \(name)")
    }
    let sectors = try number(child)
    guard sectors <= maximumFileOffset / 512 else { throw .corrupt("\(name) is out of range") }
    return sectors * 512
  }

  private static func number(_ element: XMLElement) throws(EngineError) -> UInt64 {
    let text = trimmed(element.text)
    guard let number = UInt64(text) else { throw .corrupt("\(element.name) is no number: '\(text)'") }
    return number
  }

  private static func guid(_ name: String, of element: XMLElement) throws(EngineError) -> String {
    let guid = element.child(name).map { normalised($0.text) } ?? ""
    guard !guid.isEmpty else { throw .corrupt("The disk descriptor has a \(element.name) without \(name)") }
    return guid
  }

  /// GUIDs are compared without regard to case, as others do.
  static func normalised(_ guid: String) -> String { trimmed(guid).lowercased() }

  private static func trimmed(_ text: String) -> String {
    let start = text.drop { $0.isWhitespace }
    return String(start.reversed().drop { $0.isWhitespace }.reversed())
  }
}
