import FormatEngine
import Glibc

/// Waits for SIGTERM, SIGINT and SIGHUP on a thread of its own, and gets the main thread out of libfuse's
/// loop when one comes.
///
/// The signals are blocked in all threads, so none is lost and none ends the process before it has
/// unmounted. libfuse's own handlers leave a moment in which they do not wake the loop.
final class SignalWatch: Sendable {
  private enum Phase { case waiting, ending, ended }

  private let phase = Guarded(Phase.waiting)
  private let end: @Sendable () -> Void
  private let mainThread: pthread_t

  /// Blocks these signals, and no others, for this thread and all that it starts: to be called before
  /// there are any. Whoever started this process may have blocked more.
  static func blockSignals() {
    var signals = signalSet
    unsafe pthread_sigmask(SIG_SETMASK, &signals, nil)
  }

  /// What would end the process for a fault of those it works for is an error of a system call.
  static func ignoreFaults() {
    signal(SIGPIPE, SIG_IGN)
    // Past the limit of setrlimit(2) a write is to fail with EFBIG, which reaches whoever wrote.
    signal(SIGXFSZ, SIG_IGN)
  }

  /// `end` is called once, when a signal comes before `finish`.
  init(end: @escaping @Sendable () -> Void) {
    self.end = end
    mainThread = pthread_self()
    // A handler that does nothing: the signal's only work is to interrupt the main thread's waiting.
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    unsafe sigaction(SIGUSR1, &action, nil)
    _ = DetachedThread.start { self.watch() }
  }

  /// The loop is over: `end` is not called any more.
  func finish() { phase.withLock { $0 = .ended } }

  private func watch() {
    var signals = Self.signalSet
    var received: CInt = 0
    while unsafe sigwait(&signals, &received) != 0 {}
    phase.withLock { phase in
      guard phase == .waiting else { return }
      end()
      phase = .ending
    }
    // Again and again: the main thread may have been about to wait when the first one came.
    while phase.withLock({ $0 == .ending }) {
      pthread_kill(mainThread, SIGUSR1)
      usleep(10_000)
    }
  }

  private static var signalSet: sigset_t {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&signals, number) }
    return signals
  }
}
