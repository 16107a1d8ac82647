import FormatEngine
import Glibc

/// The machine's log, for what a process in the background has to say and nobody waits for.
enum SystemLog {
  /// Opens the log, once: what is written is imgfs's, by whatever name it was started.
  private static let opening: Void = {
    // The log keeps the pointer to the name: it is never freed.
    unsafe openlog(strdup("imgfs"), LOG_PID, LOG_DAEMON)
  }()

  static func write(_ sentence: String) {
    opening
    let text = Terminal.shown(sentence)
    unsafe text.withHostBytes { text in
      // SAFETY: the format takes one string, which ends with a NUL and lives until the call returns.
      unsafe withVaList([text]) { unsafe vsyslog(LOG_ERR, "%s", $0) }
    }
  }
}
