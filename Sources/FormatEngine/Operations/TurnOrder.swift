/// Lets threads pass one by one: in the order of their work's numbers, or whoever is ready first.
final class TurnOrder: @unchecked Sendable {
  // @unchecked: the variables are only touched inside `monitor.locked`.
  private let monitor = Monitor()
  private var next: UInt64 = 0
  private var isTaken = false
  private var firstFailure: EngineError?

  /// Runs `body` when all work with lower numbers has passed. False where some of it failed: then no more
  /// work passes, and it is the failed one that tells why.
  func take(_ number: UInt64, _ body: () throws(EngineError) -> Void) throws(EngineError) -> Bool {
    try pass(when: { next == number }, body)
  }

  /// Runs `body` when nobody else passes. False as above.
  func takeNext(_ body: () throws(EngineError) -> Void) throws(EngineError) -> Bool {
    try pass(when: { true }, body)
  }

  /// Nobody waits any more: some work has failed and will never pass.
  func cancel(because error: EngineError) {
    monitor.locked {
      if firstFailure == nil { firstFailure = error }
      monitor.wakeAll()
    }
  }

  /// Why no more work passes; nil while it does.
  var failure: EngineError? { monitor.locked { firstFailure } }

  private func pass(when isNext: () -> Bool, _ body: () throws(EngineError) -> Void) throws(EngineError)
    -> Bool
  {
    let mayPass = monitor.locked {
      while firstFailure == nil && (isTaken || !isNext()) { monitor.wait() }
      isTaken = true
      return firstFailure == nil
    }
    guard mayPass else { return false }
    do throws(EngineError) {
      try body()
    } catch {
      cancel(because: error)
      throw error
    }
    monitor.locked {
      isTaken = false
      next += 1
      monitor.wakeAll()
    }
    return true
  }
}
