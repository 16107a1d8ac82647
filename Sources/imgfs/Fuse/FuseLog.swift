internal import CFuse
import FormatEngine
import Glibc

/// What libfuse has to say. Until the mount is there it is kept, to be part of an error's sentence;
/// after that it goes to the terminal, where there is one.
enum FuseLog {
  private struct State {
    var isKept = true
    var lines: [String] = []
  }

  private static let state = Guarded(State())

  static func start(isDebugging: Bool) {
    state.withLock { $0.isKept = !isDebugging }
    unsafe fuse_set_log_func { _, format, arguments in
      guard let format = unsafe format, let arguments = unsafe arguments else { return }
      var buffer = [CChar](repeating: 0, count: 1024)
      // SAFETY: vsnprintf writes at most the given count, and ends the text with a NUL.
      unsafe vsnprintf(&buffer, buffer.count, format, arguments)
      FuseLog.take(String(hostBytes: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }))
    }
  }

  private static func take(_ text: String) {
    let isKept = state.withLock { state in
      if state.isKept { state.lines.append(text) }
      return state.isKept
    }
    if !isKept { Terminal.write(text, to: STDERR_FILENO) }
  }

  /// What was said until now, in one line; from now on it goes to the terminal.
  static func finish() -> String {
    let lines = state.withLock { state in
      state.isKept = false
      defer { state.lines = [] }
      return state.lines
    }
    return lines.joined().split(separator: "\n").map { line in
      line.hasPrefix("fuse: ") ? String(line.dropFirst(6)) : String(line)
    }.joined(separator: "; ")
  }
}
