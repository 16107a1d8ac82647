import FormatEngine
import Glibc

/// The machine's log, for what a process in the background has to say and nobody waits for.
enum SystemLog {
  static func write(_ sentence: String) {
    let text = Terminal.shown(sentence)
    unsafe text.withHostBytes { text in
      // SAFETY: the format takes one string, which ends with a NUL and lives until the call returns.
      unsafe withVaList([text]) { unsafe vsyslog(LOG_DAEMON | LOG_ERR, "imgfs: %s", $0) }
    }
  }
}
