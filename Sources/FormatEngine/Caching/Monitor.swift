import Glibc

/// A mutex with a condition that threads wait for: `Synchronization` has no condition variable, so this wraps
/// pthread's.
@safe final class Monitor: @unchecked Sendable {
  // @unchecked: the two pthread objects are made to be shared.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>

  init() {
    unsafe mutex = .allocate(capacity: 1)
    unsafe condition = .allocate(capacity: 1)
    unsafe pthread_mutex_init(mutex, nil)
    unsafe pthread_cond_init(condition, nil)
  }

  deinit {
    unsafe pthread_cond_destroy(condition)
    unsafe pthread_mutex_destroy(mutex)
    unsafe condition.deallocate()
    unsafe mutex.deallocate()
  }

  @inline(__always)
  func locked<T>(_ body: () -> T) -> T {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    return body()
  }

  /// Called inside `locked`: lets others in until somebody calls `wakeAll`, perhaps also without.
  func wait() { unsafe pthread_cond_wait(condition, mutex) }

  /// Called inside `locked`.
  func wakeAll() { unsafe pthread_cond_broadcast(condition) }
}
