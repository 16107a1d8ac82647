/// Where the parent of a differencing disk is, and which state of it is meant ([MS-VHDX] 2.6.2.6).
///
///      0 - 15  type GUID              then for each entry
///     16 - 17  reserved                0 -  3  key offset      8 -  9  key length
///     18 - 19  entry count             4 -  7  value offset   10 - 11  value length
///
/// Keys and values are UTF-16 without an end mark; offsets count from the start of the locator, lengths are bytes.
struct VHDXParentLocator: Equatable, Sendable {
  var values: [String: String]

  static let type = VHDXGuid(0xb04a_efb7, 0xd19e, 0x4a81, 0xb789_25b8_e944_5913)
  private static let headerByteCount = 20
  private static let entryByteCount = 12

  enum Key {
    static let linkage = "parent_linkage"
    static let secondLinkage = "parent_linkage2"
    static let relativePath = "relative_path"
    static let volumePath = "volume_path"
    static let absolutePath = "absolute_win32_path"
    static let all: Set<String> = [linkage, secondLinkage, relativePath, volumePath, absolutePath]
    /// Of the longest, in UTF-16.
    static let maximumByteCount = 2 * absolutePath.utf16.count
  }

  static func parse(_ bytes: [UInt8]) throws(EngineError) -> VHDXParentLocator {
    try bytes.parsed { (span) throws(EngineError) in
      let type = try VHDXGuid.parse(span, at: 0)
      guard type == Self.type else { throw .unsupported("The parent is named by a locator of type \(type)") }
      let count = try span.littleEndian(UInt16.self, at: 18)
      var values: [String: String] = [:]
      for index in 0..<Int(count) {
        let entry = headerByteCount + entryByteCount * index
        func range(offsetAt: Int, lengthAt: Int) throws(EngineError) -> Range<Int> {
          let start = Int(try span.littleEndian(UInt32.self, at: entry + offsetAt))
          let end = start + Int(try span.littleEndian(UInt16.self, at: entry + lengthAt))
          guard end <= span.byteCount else { throw .corrupt("A text leaves the VHDX parent locator") }
          return start..<end
        }
        let keyRange = try range(offsetAt: 0, lengthAt: 8)
        let valueRange = try range(offsetAt: 4, lengthAt: 10)
        // Other keys mean nothing here, and thousands of entries may share one long text.
        guard keyRange.count <= Key.maximumByteCount else { continue }
        let key = utf16(try span.bytes(in: keyRange))
        guard Key.all.contains(key) else { continue }
        guard values.updateValue(utf16(try span.bytes(in: valueRange)), forKey: key) == nil else {
          throw .corrupt("The VHDX parent locator has '\(key)' twice")
        }
      }
      return VHDXParentLocator(values: values)
    }
  }

  /// Where the value of a key stands in a locator that was read before, nil where there is no such key.
  static func place(of key: String, in bytes: [UInt8]) throws(EngineError) -> Range<Int>? {
    try bytes.parsed { (span) throws(EngineError) in
      for index in 0..<Int(try span.littleEndian(UInt16.self, at: 18)) {
        let entry = headerByteCount + entryByteCount * index
        let start = Int(try span.littleEndian(UInt32.self, at: entry))
        let length = Int(try span.littleEndian(UInt16.self, at: entry + 8))
        guard length <= Key.maximumByteCount else { continue }
        let name = try span.bytes(in: start..<start + length)
        guard utf16(name) == key else { continue }
        let value = Int(try span.littleEndian(UInt32.self, at: entry + 4))
        return value..<value + Int(try span.littleEndian(UInt16.self, at: entry + 10))
      }
      return nil
    }
  }

  /// Pairs of keys and values, those that mean nothing here, too.
  static func entryCount(in bytes: [UInt8]) throws(EngineError) -> Int {
    try bytes.parsed { (span) throws(EngineError) in Int(try span.littleEndian(UInt16.self, at: 18)) }
  }

  private static func utf16(_ bytes: [UInt8]) -> String {
    let units = stride(from: 0, to: bytes.count - 1, by: 2).map {
      UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8
    }
    return String(characters: String(decoding: units, as: UTF16.self))
  }

  func serialised() -> [UInt8] {
    var table: [UInt8] = []
    Self.type.append(to: &table)
    table.append(littleEndian: UInt16(0))
    table.append(littleEndian: UInt16(values.count))
    var texts: [UInt8] = []
    let start = Self.headerByteCount + Self.entryByteCount * values.count
    for (key, value) in values.sorted(by: { $0.key < $1.key }) {
      let (keyOffset, keyLength) = (start + texts.count, key.utf16.count * 2)
      for unit in key.utf16 { texts.append(littleEndian: unit) }
      let valueOffset = start + texts.count
      for unit in value.utf16 { texts.append(littleEndian: unit) }
      table.append(littleEndian: UInt32(keyOffset))
      table.append(littleEndian: UInt32(valueOffset))
      table.append(littleEndian: UInt16(keyLength))
      table.append(littleEndian: UInt16(value.utf16.count * 2))
    }
    return table + texts
  }

  /// States of the parent that this disk may lie over, by their data write GUID.
  var linkages: [VHDXGuid] {
    [Key.linkage, Key.secondLinkage].compactMap { values[$0] }.compactMap { VHDXGuid(text: $0) }
  }
}

// MARK: Names

extension VHDXParentLocator {
  /// Of a name on this host: relative ones stay so, absolute ones begin with a backslash.
  init(name: String, linkage: VHDXGuid) throws(EngineError) {
    // Both would be read as something else, and lengths have 16 bits.
    guard !name.utf8.contains(UInt8(ascii: "\\")), name.utf16.count < 32000 else {
      throw .invalid("A VHDX cannot record '\(name)' as the name of its parent")
    }
    let backslashed = String(name.map { $0 == "/" ? "\\" : $0 })
    values = [Key.linkage: linkage.description]
    if name.hasPrefix("/") {
      values[Key.absolutePath] = backslashed
    } else {
      values[Key.relativePath] = name.hasPrefix("../") ? backslashed : ".\\" + backslashed
    }
  }

  /// The parent as the image's messages call it: the name that tells most.
  var recordedName: String {
    values[Key.absolutePath] ?? values[Key.relativePath] ?? values[Key.volumePath] ?? ""
  }

  /// Where it may lie here, in the order of the specification; names of other machines' drives are tried by their
  /// last part, in the image's folder.
  var candidates: [String] {
    var found: [String] = []
    func add(_ path: String) {
      if !path.isEmpty, !found.contains(path) { found.append(path) }
    }
    if let relative = values[Key.relativePath] {
      var path = Substring(Self.slashed(relative))
      while path.hasPrefix("./") { path = path.dropFirst(2) }
      // An absolute one under this name is taken by its last part, too.
      if !path.hasPrefix("/") { add(String(path)) }
    }
    if let absolute = values[Key.absolutePath], absolute.hasPrefix("\\"), !absolute.hasPrefix("\\\\") {
      add(Self.slashed(absolute))
    }
    for key in [Key.relativePath, Key.volumePath, Key.absolutePath] {
      if let value = values[key] { add(ImageName.lastComponent(of: Self.slashed(value))) }
    }
    return found
  }

  private static func slashed(_ name: String) -> String { String(name.map { $0 == "\\" ? "/" : $0 }) }

  var reference: BackingReference {
    BackingReference(name: recordedName, format: VHDXFormat.name, candidates: candidates)
  }
}
