import CommandLine
import FormatEngine
import Glibc
import Synchronization

/// Text for the person at the terminal, written through descriptors. Complaints of a process that has left the terminal go
/// to the machine's log.
enum Terminal {
  private static let isLeft = Atomic<Bool>(false)

  /// Nobody reads the standard descriptors any more.
  static func leave() { isLeft.store(true, ordering: .releasing) }

  static func print(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// One sentence about what went wrong, and what there is to add on lines of its own. Names from images may be in them:
  /// nothing of them moves the terminal's cursor, begins a line, changes colours or turns text around.
  static func complain(_ sentence: String, _ additions: [String] = []) {
    if isLeft.load(ordering: .acquiring) {
      SystemLog.write(([sentence] + additions).joined(separator: ". "))
      return
    }
    let lines = ["imgfs: " + shown(sentence)] + additions.map(shown)
    write(lines.map { $0 + "\n" }.joined(), to: STDERR_FILENO)
  }

  static func complain(_ error: EngineError) { complain(error.message, error.additions) }

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
