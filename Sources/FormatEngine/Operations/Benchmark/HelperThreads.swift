/// Threads that carry out what would make the thread wait that hands it to them. That one collects what is done.
final class HelperThreads: @unchecked Sendable {
  // @unchecked: the variables are only touched inside `monitor.locked`.

  /// One thing that is done, by the number that it was handed over with.
  struct Result {
    let tag: Int
    let failure: EngineError?
  }

  /// Is raised when something is done.
  let signal: WakeSignal
  private let perform: @Sendable (_ tag: Int) throws(EngineError) -> Void
  private let monitor = Monitor()
  private var waiting: [Int] = []
  private var results: [Result] = []
  private var threadCount = 0
  private var isEnding = false

  init(perform: @escaping @Sendable (_ tag: Int) throws(EngineError) -> Void) throws(EngineError) {
    signal = try WakeSignal()
    self.perform = perform
  }

  /// The life of a helper; returns after `end`.
  func serve() {
    monitor.locked { threadCount += 1 }
    while let tag = next() { finish(tag) }
  }

  private func next() -> Int? {
    monitor.locked {
      while waiting.isEmpty && !isEnding { monitor.wait() }
      return waiting.popLast()
    }
  }

  private func finish(_ tag: Int) {
    var failure: EngineError?
    do throws(EngineError) { try perform(tag) } catch { failure = error }
    let isFirst = monitor.locked {
      results.append(Result(tag: tag, failure: failure))
      return results.count == 1
    }
    if isFirst { signal.raise() }
  }

  /// Hands something over.
  func hand(_ tag: Int) {
    monitor.locked {
      waiting.insert(tag, at: 0)
      monitor.wakeAll()
    }
  }

  /// Carries out what waits, where there are no threads yet, or none could be started. Only for who holds nothing that
  /// it could wait for.
  func performWithoutThreads() -> Bool {
    let tag = monitor.locked { threadCount == 0 ? waiting.popLast() : nil }
    guard let tag else { return false }
    finish(tag)
    return true
  }

  /// What was done since the last call.
  func collect() -> [Result] {
    monitor.locked {
      guard !results.isEmpty else { return [] }
      let collected = results
      results.removeAll(keepingCapacity: true)
      return collected
    }
  }

  /// Nothing more is handed over.
  func end() {
    monitor.locked {
      isEnding = true
      monitor.wakeAll()
    }
  }
}
