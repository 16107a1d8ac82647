import CommandLine
import FormatEngine
import Glibc

/// Text for the person at the terminal, written through descriptors.
enum Terminal {
  static func print(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// One sentence about what went wrong. Names from images may be in it: nothing of them moves the terminal's cursor, changes
  /// its colours or turns its text around.
  static func complain(_ sentence: String) {
    let lines = sentence.split(separator: "\n", omittingEmptySubsequences: false).map { shown(String($0)) }
    write("imgfs: \(lines.joined(separator: "\n"))\n", to: STDERR_FILENO)
  }

  /// A text in one line, with what is no visible character as its number.
  static func shown(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isHidden) else { return text }
    return text.unicodeScalars.reduce(into: "") { result, scalar in
      if isHidden(scalar) {
        result += "\\u{\(String(scalar.value, radix: 16))}"
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
  }

  private static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator: true
    default: false
    }
  }

  static func write(_ text: String, to descriptor: CInt) {
    _ = Descriptor.write(text.hostBytes, to: descriptor)
  }
}
