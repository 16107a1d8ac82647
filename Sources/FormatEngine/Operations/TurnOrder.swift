/// Lets threads pass one by one in the order of their work's numbers, whoever is ready first.
final class TurnOrder: @unchecked Sendable {
  // @unchecked: `next` and `isCancelled` are only touched inside `monitor.locked`.
  private let monitor = Monitor()
  private var next: UInt64 = 0
  private var isCancelled = false

  /// Runs `body` when all work with lower numbers has passed. False where some of it failed: then no more
  /// work passes, and it is the failed one that tells why.
  func take(_ number: UInt64, _ body: () throws(EngineError) -> Void) throws(EngineError) -> Bool {
    guard wait(for: number) else { return false }
    do throws(EngineError) {
      try body()
    } catch {
      cancel()
      throw error
    }
    monitor.locked {
      next = number + 1
      monitor.wakeAll()
    }
    return true
  }

  /// Nobody waits any more: some work will never pass.
  func cancel() {
    monitor.locked {
      isCancelled = true
      monitor.wakeAll()
    }
  }

  private func wait(for number: UInt64) -> Bool {
    monitor.locked {
      while next != number && !isCancelled { monitor.wait() }
      return !isCancelled
    }
  }
}
