import FormatEngine
import Glibc

/// Text for the person at the terminal, written through descriptors.
enum Terminal {
  static func print(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// One sentence about what went wrong.
  static func complain(_ sentence: String) { write("imgfs: \(sentence)\n", to: STDERR_FILENO) }

  static func write(_ text: String, to descriptor: CInt) {
    let bytes = text.hostBytes
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { raw in
        // SAFETY: `done` stays below the array's count.
        unsafe Glibc.write(descriptor, raw.baseAddress.map { unsafe $0 + done }, raw.count - done)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return }
      done += count
    }
  }
}
