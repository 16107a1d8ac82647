/// Sizes as qemu-img's users write them: a number, perhaps with a fraction, and a suffix of powers of 1024.
public enum SizeText {
  public enum Failure: Error, Equatable { case notASize, outOfRange }

  /// Bytes of "10", "1.5G", "64k", "0x200". Without a suffix `unit` says what the number counts.
  public static func parse(_ text: String, unit: UInt64 = 1) throws(Failure) -> UInt64 {
    var digits = Substring(text).drop { $0 == " " || $0 == "\t" }
    if digits.hasPrefix("-") {
      // A negative number is out of range; with anything behind it, it is none.
      let isNumber = digits.count > 1 && digits.dropFirst().allSatisfy { $0.isASCII && $0.isNumber }
      throw isNumber ? .outOfRange : .notASize
    }
    if digits.hasPrefix("+") { digits = digits.dropFirst() }
    if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
      let rest = digits.dropFirst(2)
      guard !rest.isEmpty, rest.allSatisfy(\.isHexDigit) else { throw .notASize }
      guard let value = UInt64(rest, radix: 16) else { throw .outOfRange }
      return value
    }
    let whole = digits.prefix { $0.isASCII && $0.isNumber }
    digits = digits.dropFirst(whole.count)
    var fraction: Substring = ""
    if digits.hasPrefix(".") {
      fraction = digits.dropFirst().prefix { $0.isASCII && $0.isNumber }
      digits = digits.dropFirst(1 + fraction.count)
    }
    guard !whole.isEmpty || !fraction.isEmpty, digits.count <= 1 else { throw .notASize }
    let multiplier = try multiplier(of: digits.first, unit: unit)
    if !fraction.isEmpty && multiplier == 1 && fraction.contains(where: { $0 != "0" }) { throw .notASize }

    guard let number = whole.isEmpty ? 0 : UInt64(whole) else { throw .outOfRange }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: multiplier)
    if overflow { throw .outOfRange }
    let (sum, sumOverflow) = bytes.addingReportingOverflow(part(fraction, of: multiplier))
    if sumOverflow { throw .outOfRange }
    return sum
  }

  private static func multiplier(of suffix: Character?, unit: UInt64) throws(Failure) -> UInt64 {
    switch suffix {
    case nil: unit
    case "b", "B": 1
    case "k", "K": KiB
    case "m", "M": MiB
    case "g", "G": GiB
    case "t", "T": TiB
    case "p", "P": TiB << 10
    case "e", "E": TiB << 20
    default: throw .notASize
    }
  }

  /// The decimal fraction `digits` of `multiplier`, rounded to the nearest byte.
  private static func part(_ digits: Substring, of multiplier: UInt64) -> UInt64 {
    guard !digits.isEmpty, let fraction = Double("0.\(digits)") else { return 0 }
    return UInt64((fraction * Double(multiplier)).rounded(.toNearestOrAwayFromZero))
  }

  /// A plain integer, decimal, hexadecimal (0x) or octal (0), of at most 64 bits. A negative one is taken
  /// modulo 2^64, as strtoull takes it.
  public static func parseInteger(_ text: String) -> UInt64? {
    var digits = Substring(text).drop { $0.isASCII && $0.isWhitespace }
    let isNegative = digits.hasPrefix("-")
    if isNegative || digits.hasPrefix("+") { digits = digits.dropFirst() }
    guard let first = digits.first, first.isASCII, first.isNumber else { return nil }
    var radix = 10
    if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
      (digits, radix) = (digits.dropFirst(2), 16)
      guard let first = digits.first, first.isHexDigit else { return nil }
    } else if digits.count > 1 && digits.hasPrefix("0") {
      radix = 8
    }
    guard let value = UInt64(digits, radix: radix) else { return nil }
    return isNegative ? 0 &- value : value
  }

  /// The value of a size option, with qemu-img's words where it is none.
  public static func parseOption(_ text: String, name: String) throws(EngineError) -> UInt64 {
    do throws(Failure) {
      return try parse(text)
    } catch {
      if error == .outOfRange { throw .invalid("Value '\(text)' is out of range for parameter '\(name)'") }
      throw .invalid(
        "Parameter '\(name)' expects a non-negative number below 2^64\n"
          + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
          + "and exabytes, respectively.")
    }
  }
}
