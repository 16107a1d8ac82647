/// What stands between the header and the backing file's name (qcow2.txt, "Header extensions").
/// Unknown extensions are kept as they are.
struct Qcow2HeaderExtensions: Equatable, Sendable {
  struct Extension: Equatable, Sendable {
    var type: UInt32
    var content: [UInt8]
  }

  enum Kind {
    static let end: UInt32 = 0
    static let backingFormat: UInt32 = 0xe279_2aca
    static let featureNames: UInt32 = 0x6803_f857
    static let bitmaps: UInt32 = 0x2385_2875
    static let encryption: UInt32 = 0x0537_be77
    static let dataFile: UInt32 = 0x4441_5441
    /// Ours, "skip": jumps over bytes while `Qcow2PrologueWriter` is at work. Of no meaning otherwise.
    static let skip: UInt32 = 0x736b_6970

    /// Where new extensions go: in qemu-img's order, what is unknown last.
    static func rank(_ type: UInt32) -> Int {
      [backingFormat, dataFile, encryption, featureNames, bitmaps].firstIndex(of: type) ?? 5
    }
  }

  /// A name for one bit of one of the three feature fields.
  struct FeatureName: Equatable {
    enum Field: UInt8 { case incompatible, compatible, autoclear }
    var field: Field
    var bit: UInt8
    var name: String
  }

  var all: [Extension] = []

  /// Reads the extensions in `bytes` (the first cluster) from `start` up to `end`.
  static func parse(_ bytes: RawSpan, from start: Int, to end: Int) throws(EngineError)
    -> Qcow2HeaderExtensions
  {
    var result = Qcow2HeaderExtensions()
    var position = start
    while position <= end - 8 {
      let type = try bytes.bigEndian(UInt32.self, at: position)
      let length = Int(try bytes.bigEndian(UInt32.self, at: position + 4))
      position += 8
      guard type != Kind.end else { break }
      guard length <= end - position else { throw .corrupt("Header extension too large") }
      if type != Kind.skip {
        result.all.append(Extension(type: type, content: try bytes.bytes(in: position..<position + length)))
      }
      position += (length + 7) & ~7
    }
    return result
  }

  /// The last of several, as qemu-img takes it.
  subscript(type: UInt32) -> [UInt8]? {
    all.last { $0.type == type }?.content
  }

  /// Where the image says that its LUKS header is; nil where it does not, or not in these two words
  /// (qcow2.txt, "Full disk encryption header pointer").
  var encryptionHeader: (offset: UInt64, byteCount: UInt64)? {
    guard let content = self[Kind.encryption] else { return nil }
    return try? content.parsed { (span) throws(EngineError) in
      (try span.bigEndian(UInt64.self, at: 0), try span.bigEndian(UInt64.self, at: 8))
    }
  }

  func text(_ type: UInt32) -> String? {
    self[type].map { String(hostBytes: $0) }
  }

  mutating func set(_ type: UInt32, _ content: [UInt8]?) {
    // Of several only one stays.
    if let last = all.lastIndex(where: { $0.type == type }) {
      let kept = all[last]
      all.removeAll { $0.type == type }
      all.insert(kept, at: min(last, all.count))
    }
    let index = all.firstIndex { $0.type == type }
    switch (index, content) {
    case (let index?, let content?): all[index].content = content
    case (let index?, nil): all.remove(at: index)
    case (nil, let content?):
      let place = all.firstIndex { Kind.rank($0.type) > Kind.rank(type) } ?? all.count
      all.insert(Extension(type: type, content: content), at: place)
    case (nil, nil): break
    }
  }

  /// The end marker included.
  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    for item in all {
      bytes.append(bigEndian: item.type)
      bytes.append(bigEndian: UInt32(item.content.count))
      bytes.append(contentsOf: item.content)
      bytes.pad(toMultipleOf: 8)
    }
    bytes.append(bigEndian: UInt64(0))
    return bytes
  }

  /// The image's own names for features, for messages about those that are not known here.
  var featureNames: [FeatureName] {
    guard let table = self[Kind.featureNames] else { return [] }
    // The last entry may end where its name ends.
    return stride(from: 0, to: max(0, table.count - 2), by: 48).compactMap { start in
      guard let field = FeatureName.Field(rawValue: table[start]) else { return nil }
      let name = table[(start + 2)..<min(start + 48, table.count)].prefix { $0 != 0 }
      return FeatureName(field: field, bit: table[start + 1], name: String(hostBytes: name))
    }
  }

  /// The table that names every feature known here, as new images carry it.
  static let knownFeatureNames: [UInt8] = {
    let names: [(UInt8, UInt8, String)] = [
      (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"), (0, 3, "compression type"),
      (0, 4, "extended L2 entries"), (1, 0, "lazy refcounts"), (2, 0, "bitmaps"), (2, 1, "raw external data"),
    ]
    return names.flatMap { field, bit, name in
      let text = Array(name.utf8)
      return [field, bit] + text + [UInt8](repeating: 0, count: 46 - text.count)
    }
  }()

  /// Refuses features that would make reading wrong, by the names that the image has for them.
  func refuseUnknown(_ features: Qcow2Header.Incompatible) throws(EngineError) {
    var unknown = features.subtracting(.known).rawValue
    guard unknown != 0 else { return }
    var listed: [String] = []
    for feature in featureNames where feature.field == .incompatible && feature.bit < 64 {
      let mask = UInt64(1) << UInt64(feature.bit)
      if unknown & mask != 0 { listed.append(feature.name) }
      unknown &= ~mask
    }
    if unknown != 0 { listed.append("Unknown incompatible feature: \(String(unknown, radix: 16))") }
    throw .unsupported("Unsupported qcow2 feature(s): \(listed.joined(separator: ", "))")
  }
}
