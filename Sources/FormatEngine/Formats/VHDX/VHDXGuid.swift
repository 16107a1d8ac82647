/// A GUID as it stands in a VHDX file: its first three parts are little-endian, the rest are bytes in order.
struct VHDXGuid: Hashable, Sendable {
  /// Bytes 0 - 7 and 8 - 15, each as a little-endian number.
  private var low: UInt64
  private var high: UInt64

  static let zero = VHDXGuid(low: 0, high: 0)

  private init(low: UInt64, high: UInt64) {
    self.low = low
    self.high = high
  }

  /// The parts of its text, in order; `rest`: the last two together.
  init(_ first: UInt32, _ second: UInt16, _ third: UInt16, _ rest: UInt64) {
    low = UInt64(first) | UInt64(second) << 32 | UInt64(third) << 48
    high = rest.byteSwapped
  }

  /// A new one (RFC 9562, version 4).
  static func new(_ source: IdentitySource, for purpose: String, after old: VHDXGuid = .zero)
    throws(EngineError) -> VHDXGuid
  {
    var last: [UInt8] = []
    old.append(to: &last)
    let bytes = try source.bytes(for: purpose, after: last)
    var guid = try bytes.parsed { (span) throws(EngineError) in try parse(span, at: 0) }
    guid.low = guid.low & 0x0fff_ffff_ffff_ffff | 0x4000_0000_0000_0000
    guid.high = guid.high & ~0xc0 | 0x80
    return guid
  }

  static func parse(_ bytes: RawSpan, at offset: Int) throws(EngineError) -> VHDXGuid {
    VHDXGuid(
      low: try bytes.littleEndian(UInt64.self, at: offset),
      high: try bytes.littleEndian(UInt64.self, at: offset + 8))
  }

  func append(to bytes: inout [UInt8]) {
    bytes.append(littleEndian: low)
    bytes.append(littleEndian: high)
  }
}

extension VHDXGuid: CustomStringConvertible {
  /// As parent locators have it, in braces and lower case ([MS-VHDX] 2.6.2.6.3).
  var description: String {
    let rest = high.byteSwapped
    return "{" + Self.hex(UInt64(UInt32(truncatingIfNeeded: low)), 8) + "-" + Self.hex(low >> 32 & 0xffff, 4)
      + "-" + Self.hex(low >> 48, 4) + "-" + Self.hex(rest >> 48, 4) + "-"
      + Self.hex(rest & 0xffff_ffff_ffff, 12) + "}"
  }

  private static func hex(_ value: UInt64, _ digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }

  /// Nil for what is no GUID; braces may be missing, and digits may be of either case.
  init?(text: String) {
    var digits = Substring(text)
    if digits.hasPrefix("{"), digits.hasSuffix("}") { digits = digits.dropFirst().dropLast() }
    let parts = digits.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.map(\.utf8.count) == [8, 4, 4, 4, 12],
      parts.allSatisfy({ part in part.utf8.allSatisfy { $0 != UInt8(ascii: "+") } }),
      let first = UInt32(parts[0], radix: 16), let second = UInt16(parts[1], radix: 16),
      let third = UInt16(parts[2], radix: 16), let fourth = UInt64(parts[3], radix: 16),
      let fifth = UInt64(parts[4], radix: 16)
    else { return nil }
    self.init(first, second, third, fourth << 48 | fifth)
  }
}
