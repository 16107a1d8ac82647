/// How identifiers that stand on disks are written as text.
enum IdentifierText {
  /// A UUID whose bytes stand in order: 8-4-4-4-12 digits in lower case. Nil for one of zeros, which means that there
  /// is none.
  static func uuid(_ bytes: some Collection<UInt8>) -> String? {
    guard bytes.count == 16, bytes.contains(where: { $0 != 0 }) else { return nil }
    return grouped(bytes.flatMap { [hex[Int($0 >> 4)], hex[Int($0 & 15)]] }, [8, 4, 4, 4, 12])
  }

  /// A GUID of the UEFI specification: the first three parts are little-endian numbers.
  static func guid(_ bytes: some Collection<UInt8>) -> String? {
    let bytes = Array(bytes)
    guard bytes.count == 16 else { return nil }
    return uuid([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map { bytes[$0] })
  }

  /// Characters in groups with a dash between any two of these.
  static func grouped(_ characters: some Collection<UInt8>, _ counts: [Int]) -> String {
    var (groups, rest) = ([String](), characters[...])
    for count in counts {
      groups.append(String(hostBytes: rest.prefix(count)))
      rest = rest.dropFirst(count)
    }
    return groups.joined(separator: "-")
  }

  /// A serial number of 32 bits as DOS writes it: ABCD-1234.
  static func volumeSerial(_ number: UInt32) -> String {
    let digits = hexadecimal(UInt64(number), 8).uppercased()
    return "\(digits.prefix(4))-\(digits.suffix(4))"
  }

  /// In lower case, with zeros in front up to `digits`.
  static func hexadecimal(_ number: UInt64, _ digits: Int) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
  }

  /// A label in a field of bytes: what stands before the first NUL, without spaces behind it. Nil where that is
  /// nothing.
  static func label(_ bytes: some Collection<UInt8>) -> String? {
    trimmed(String(hostBytes: bytes.prefix { $0 != 0 }))
  }

  /// A label in a field of UTF-16 units. Halves of pairs are replaced.
  static func label(utf16 units: some Collection<UInt16>) -> String? {
    trimmed(text(utf16: units))
  }

  /// What stands before the first NUL. Halves of pairs are replaced.
  static func text(utf16 units: some Collection<UInt16>) -> String {
    String(characters: String(decoding: Array(units.prefix { $0 != 0 }), as: UTF16.self))
  }

  private static func trimmed(_ text: String) -> String? {
    var scalars = text.unicodeScalars[...]
    while let last = scalars.last, last == " " || (9...13).contains(last.value) { scalars.removeLast() }
    return scalars.isEmpty ? nil : String(scalars)
  }

  private static let hex = Array("0123456789abcdef".utf8)
}

extension RawSpan {
  /// `count` little-endian units of UTF-16.
  func utf16Units(at offset: Int, count: Int) throws(EngineError) -> [UInt16] {
    var units: [UInt16] = []
    for index in 0..<count { units.append(try littleEndian(UInt16.self, at: offset + 2 * index)) }
    return units
  }
}
