import FormatEngine
import Glibc

extension EngineError {
  /// A failure that is all said with a number of the host.
  static func system(_ number: CInt) -> EngineError {
    EngineError(.system(errno: number), EngineError.systemErrorText(number))
  }
}
