import FormatEngine
import Glibc
import Synchronization

/// A line on the terminal that says what is being waited for: `imgfs: Opening 'disk.vhdx'... 3 s, 42%`. It is shown from
/// the second second on, counts them, says how far the work is where that is known, and is wiped away in the end. Where
/// standard error is no terminal there is none.
enum WaitingLine {
  /// The line's thread has ended when this returns.
  static func during<T, E: Error>(
    _ text: String, on terminal: CInt = STDERR_FILENO, _ body: (Progress) throws(E) -> T
  ) throws(E) -> T {
    guard isatty(terminal) == 1, let ticker = Ticker(text, on: terminal) else { return try body(.none) }
    defer { ticker.finish() }
    return try body(ticker.progress)
  }

  /// A thread that shows the line.
  private struct Ticker {
    private let thread: pthread_t
    /// Closed to end it.
    private let end: CInt
    let progress: Progress

    /// Nil where there can be no thread.
    init?(_ text: String, on terminal: CInt) {
      var ends: [CInt] = [0, 0]
      guard unsafe pipe(&ends) == 0 else { return nil }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      let work = Work(text, on: terminal, end: ends[0])
      progress = Progress(isWatched: true, report: { work.note($0, of: $1) })
      let argument = unsafe Unmanaged.passRetained(work).toOpaque()
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
    private let terminal: CInt
    /// Hangs up when the other end is closed.
    private let end: CInt
    /// How far the work is, in percent; below zero while nothing is known.
    private let percent = Atomic<Int>(-1)

    init(_ text: String, on terminal: CInt, end: CInt) {
      self.text = text
      self.terminal = terminal
      self.end = end
    }

    deinit { close(end) }

    func note(_ done: UInt64, of total: UInt64) {
      guard total > 0 else { return }
      percent.store(Int(min(Double(done) / Double(total), 1) * 100), ordering: .relaxed)
    }

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
        let percent = percent.load(ordering: .relaxed)
        // Wiped to its end: it may have become shorter.
        let share = percent < 0 ? "" : ", \(percent)%\u{1B}[K"
        Terminal.write("\rimgfs: \(text)... \(seconds) s\(share)", to: terminal)
      }
      // Back to the beginning of the line, and wiped to its end.
      if isShown { Terminal.write("\r\u{1B}[K", to: terminal) }
    }
  }
}
