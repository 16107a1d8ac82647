import Glibc

/// Lets threads pass one by one in the order of their work's numbers, whoever is ready first.
@safe final class TurnOrder: @unchecked Sendable {
  // @unchecked: `next` and `isCancelled` are only touched with `mutex` locked.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let passed: UnsafeMutablePointer<pthread_cond_t>
  private var next: UInt64 = 0
  private var isCancelled = false

  init() {
    unsafe mutex = .allocate(capacity: 1)
    unsafe passed = .allocate(capacity: 1)
    unsafe pthread_mutex_init(mutex, nil)
    unsafe pthread_cond_init(passed, nil)
  }

  deinit {
    unsafe pthread_cond_destroy(passed)
    unsafe pthread_mutex_destroy(mutex)
    unsafe passed.deallocate()
    unsafe mutex.deallocate()
  }

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
    finish { next = number + 1 }
    return true
  }

  /// Nobody waits any more: some work will never pass.
  func cancel() { finish { isCancelled = true } }

  private func wait(for number: UInt64) -> Bool {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    while next != number && !isCancelled { unsafe pthread_cond_wait(passed, mutex) }
    return !isCancelled
  }

  private func finish(_ change: () -> Void) {
    unsafe pthread_mutex_lock(mutex)
    change()
    unsafe pthread_cond_broadcast(passed)
    unsafe pthread_mutex_unlock(mutex)
  }
}
