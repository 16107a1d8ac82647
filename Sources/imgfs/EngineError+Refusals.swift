import FormatEngine
import Glibc

extension EngineError {
  /// A failure that is all said with a number of the host.
  static func system(_ number: CInt) -> EngineError {
    EngineError(.system(errno: number), EngineError.systemErrorText(number))
  }

  /// EPERM: what was asked for makes no sense here, whoever asks.
  static func notPermitted(_ message: String) -> EngineError {
    EngineError(.system(errno: EPERM), message)
  }
}
