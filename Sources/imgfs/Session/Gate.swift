import FormatEngine
import Glibc

/// A door through which many go at a time, or one alone. Who wants to be alone goes before those who come later, however
/// many they are.
@safe final class Gate: @unchecked Sendable {
  // @unchecked: pthread's lock is made to be shared.
  private let lock: UnsafeMutablePointer<pthread_rwlock_t>

  init() {
    unsafe lock = .allocate(capacity: 1)
    var attributes = pthread_rwlockattr_t()
    unsafe pthread_rwlockattr_init(&attributes)
    unsafe pthread_rwlockattr_setkind_np(
      &attributes, CInt(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
    unsafe pthread_rwlock_init(lock, &attributes)
    unsafe pthread_rwlockattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_rwlock_destroy(lock)
    unsafe lock.deallocate()
  }

  /// Must not be called inside of itself.
  func shared<T>(_ body: () throws(EngineError) -> T) throws(EngineError) -> T {
    unsafe pthread_rwlock_rdlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    return try body()
  }

  func alone<T>(_ body: () throws(EngineError) -> T) throws(EngineError) -> T {
    unsafe pthread_rwlock_wrlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    return try body()
  }
}
