import FormatEngine
import Glibc

/// How long a file may seem to be open that is closed: the kernel tells of a closing only after whoever closed it goes on.
enum ClosingDelay {
  /// Tries for a second, at 5 ms each, until `attempt` says true; false where it never does. Not for a thread that hears of
  /// closings.
  static func waits(_ attempt: () throws(EngineError) -> Bool) throws(EngineError) -> Bool {
    for _ in 0..<200 {
      if try attempt() { return true }
      usleep(5_000)
    }
    return false
  }
}
