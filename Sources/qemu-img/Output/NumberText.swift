import FormatEngine
import Glibc

/// Numbers and times as C's printf writes them.
enum NumberText {
  /// `%.2f`
  static func fixed2(_ value: Double) -> String { format("%.2f", value) }

  /// `%3.3f`
  static func fixed3(_ value: Double) -> String { format("%3.3f", value) }

  /// `value` in the largest unit that leaves at least 1: "196 KiB", "1.5 GiB", "0 B".
  static func size(_ value: UInt64) -> String {
    // Units change at 1000, so that there are never more than three digits.
    let exponent = value == 0 ? 0 : (Double(value) / (1000.0 / 1024.0)).exponent
    let unit = min(max(Int(exponent), 0) / 10, units.count - 1)
    let scaled = Double(value) / Double(UInt64(1) << UInt64(unit * 10))
    return "\(format("%0.3g", scaled)) \(units[unit])B"
  }

  private static let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]

  /// `%#-16llx`: a column of 16 characters.
  static func hexadecimalColumn(_ value: UInt64) -> String {
    left(value == 0 ? "0" : "0x" + String(value, radix: 16), 16)
  }

  /// The text at the left of a column.
  static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.unicodeScalars.count))
  }

  /// The text at the right of a column.
  static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.unicodeScalars.count)) + text
  }

  /// Digits with zeros before them.
  static func zeroPadded(_ value: UInt64, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }

  /// Seconds since the Epoch as local date and time.
  static func localTime(_ seconds: Int64) -> String {
    var time = time_t(seconds)
    var parts = unsafe tm()
    guard unsafe localtime_r(&time, &parts) != nil else { return String(seconds) }
    func padded(_ value: CInt, _ width: Int = 2) -> String { zeroPadded(UInt64(max(0, value)), width) }
    let date = unsafe [padded(parts.tm_year + 1900, 4), padded(parts.tm_mon + 1), padded(parts.tm_mday)]
    let clock = unsafe [padded(parts.tm_hour), padded(parts.tm_min), padded(parts.tm_sec)]
    return date.joined(separator: "-") + " " + clock.joined(separator: ":")
  }

  private static func format(_ pattern: String, _ value: Double) -> String {
    var buffer = [CChar](repeating: 0, count: 64)
    // SAFETY: vsnprintf writes at most the given count, with a zero at the end; the one argument is the
    // double that every pattern here takes.
    return unsafe buffer.withUnsafeMutableBufferPointer { raw in
      guard let start = raw.baseAddress else { return "" }
      unsafe withVaList([value]) { list in _ = unsafe vsnprintf(start, raw.count, pattern, list) }
      return unsafe String(hostBytes: start)
    }
  }
}
