import Glibc

/// A line on the terminal that says what is being waited for: `imgfs: Opening 'disk.vhdx'... 3 s`. It is shown from the
/// second second on, counts them, and is wiped away in the end. Where standard error is no terminal there is none.
enum WaitingLine {
  /// The line's thread has ended when this returns.
  static func during<T, E: Error>(_ text: String, _ body: () throws(E) -> T) throws(E) -> T {
    guard isatty(STDERR_FILENO) == 1, let ticker = Ticker(text) else { return try body() }
    defer { ticker.finish() }
    return try body()
  }

  /// A thread that shows the line.
  private struct Ticker {
    private let thread: pthread_t
    /// Closed to end it.
    private let end: CInt

    /// Nil where there can be no thread.
    init?(_ text: String) {
      var ends: [CInt] = [0, 0]
      guard unsafe pipe(&ends) == 0 else { return nil }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      let argument = unsafe Unmanaged.passRetained(Work(text, end: ends[0])).toOpaque()
      var thread = pthread_t()
      guard unsafe pthread_create(&thread, nil, { unsafe Work.run(unsafe $0) }, argument) == 0 else {
        unsafe Unmanaged<Work>.fromOpaque(argument).release()
        for end in ends { close(end) }
        return nil
      }
      (self.thread, end) = (thread, ends[1])
    }

    func finish() {
      close(end)
      pthread_join(thread, nil)
    }
  }

  private final class Work: Sendable {
    private let text: String
    /// Hangs up when the other end is closed.
    private let end: CInt

    init(_ text: String, end: CInt) {
      self.text = text
      self.end = end
    }

    deinit { close(end) }

    static func run(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
      guard let argument = unsafe argument else { return nil }
      // SAFETY: `Ticker.init` retained the object for this thread.
      unsafe Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().tick()
      return nil
    }

    private func tick() {
      let start = ContinuousClock.now
      var isShown = false
      while true {
        var waiting = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
        let result = unsafe poll(&waiting, 1, 1000)
        if result > 0 { break }
        if result < 0 && errno != EINTR { break }
        isShown = true
        let seconds = (ContinuousClock.now - start).components.seconds
        Terminal.write("\rimgfs: \(text)... \(seconds) s", to: STDERR_FILENO)
      }
      // Back to the beginning of the line, and wiped to its end.
      if isShown { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) }
    }
  }
}
