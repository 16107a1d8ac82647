import FormatEngine
import Glibc

/// Threads for what must not be done by one that answers requests, since it makes requests itself, or waits for one.
final class OwnThreads: Sendable {
  private struct State {
    var count = 0
    var isEnding = false
  }

  private let state = Guarded(State())

  /// Runs `body` beside whoever calls. False where there can be no more threads, and after `finish`.
  func run(_ body: @escaping @Sendable () -> Void) -> Bool {
    let mayStart = state.withLock { state in
      if !state.isEnding { state.count += 1 }
      return !state.isEnding
    }
    guard mayStart else { return false }
    let isStarted = DetachedThread.start {
      body()
      self.state.withLock { $0.count -= 1 }
    }
    if !isStarted { state.withLock { $0.count -= 1 } }
    return isStarted
  }

  /// Returns when all of them have done their work; no more are started. They may be waiting for answers to requests: it
  /// is called while these are still answered, or when the kernel has given up the mount.
  func finish() {
    state.withLock { $0.isEnding = true }
    while state.withLock({ $0.count > 0 }) { usleep(2000) }
  }
}
