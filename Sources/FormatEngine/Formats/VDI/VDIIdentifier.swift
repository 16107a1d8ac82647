/// A UUID as VirtualBox stores it: the first three groups of its text are little-endian numbers.
struct VDIIdentifier: Equatable, Sendable {
  static let byteCount = 16

  /// As they stand on disk.
  let bytes: [UInt8]

  static let none = VDIIdentifier(zeros: ())

  private init(zeros: ()) { bytes = [UInt8](repeating: 0, count: Self.byteCount) }

  init(_ span: RawSpan, at offset: Int) throws(EngineError) {
    bytes = try span.bytes(in: offset..<offset + Self.byteCount)
  }

  /// A new one (RFC 9562, version 4).
  static func new(_ source: IdentitySource, for purpose: String, after old: VDIIdentifier = .none)
    throws(EngineError) -> VDIIdentifier
  {
    var bytes = try source.bytes(for: purpose, after: old.bytes)
    // The version stands in the upper half of the third group, whose higher byte comes second.
    bytes[7] = bytes[7] & 0x0f | 0x40
    bytes[8] = bytes[8] & 0x3f | 0x80
    return VDIIdentifier(bytes: bytes)
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  /// Reads `{01234567-89ab-cdef-0123-456789abcdef}`, with or without braces.
  init?(text: String) {
    var digits: [UInt8] = []
    for character in text.utf8 {
      switch character {
      case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: "-"): continue
      default:
        guard digits.count < 2 * Self.byteCount, let digit = Character(UnicodeScalar(character)).hexDigitValue
        else { return nil }
        digits.append(UInt8(digit))
      }
    }
    guard digits.count == 2 * Self.byteCount else { return nil }
    bytes = Self.order.map { digits[2 * $0] << 4 | digits[2 * $0 + 1] }
  }

  /// Which byte of the text stands where on disk, and the other way round.
  private static let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]

  var isNone: Bool { bytes.allSatisfy { $0 == 0 } }

  /// As VirtualBox writes it in its settings and in names of files.
  var text: String {
    var text = "{"
    for (position, index) in Self.order.enumerated() {
      if [4, 6, 8, 10].contains(position) { text += "-" }
      text += String(bytes[index] >> 4, radix: 16) + String(bytes[index] & 0xf, radix: 16)
    }
    return text + "}"
  }
}
