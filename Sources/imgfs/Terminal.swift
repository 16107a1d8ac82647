import CommandLine
import FormatEngine
import Glibc

/// Text for the person at the terminal, written through descriptors.
enum Terminal {
  static func print(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// One sentence about what went wrong.
  static func complain(_ sentence: String) { write("imgfs: \(sentence)\n", to: STDERR_FILENO) }

  static func write(_ text: String, to descriptor: CInt) {
    _ = Descriptor.write(text.hostBytes, to: descriptor)
  }
}
