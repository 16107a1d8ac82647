import Glibc

/// A value that is touched by one thread at a time.
///
/// Not `Synchronization.Mutex`: on Linux that is a futex with priority inheritance (FUTEX_LOCK_PI), which is handed
/// to who has waited longest. Where many threads want a lock often and for a moment each hand-over then costs a switch of
/// threads: 64 readers of one image took five times as long (Docs/PERFORMANCE.md). pthread's adaptive mutex spins for
/// a moment, and whoever comes by may take it while those who wait wake up.
@safe public final class Guarded<Value: ~Copyable>: @unchecked Sendable {
  // @unchecked: the value is only touched inside `withLock`; pthread's object is made to be shared.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  // Behind a pointer, so that no access is checked for exclusiveness a second time.
  private let value: UnsafeMutablePointer<Value>

  // Taken twice by one thread it would wait for ever: tests hear of that.
  #if DEBUG
    private static var kind: Int { PTHREAD_MUTEX_ERRORCHECK }
  #else
    private static var kind: Int { PTHREAD_MUTEX_ADAPTIVE_NP }
  #endif

  public init(_ value: consuming sending Value) {
    unsafe mutex = .allocate(capacity: 1)
    var attributes = pthread_mutexattr_t()
    unsafe pthread_mutexattr_init(&attributes)
    unsafe pthread_mutexattr_settype(&attributes, CInt(Self.kind))
    unsafe pthread_mutex_init(mutex, &attributes)
    unsafe pthread_mutexattr_destroy(&attributes)
    unsafe self.value = .allocate(capacity: 1)
    unsafe self.value.initialize(to: value)
  }

  deinit {
    unsafe value.deinitialize(count: 1)
    unsafe value.deallocate()
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  /// Runs `body` with the value while nobody else does. Not to be called inside of `body`.
  @inline(__always)
  public func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    let result = unsafe pthread_mutex_lock(mutex)
    assert(result == 0, "taken again by the thread that has it")
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try unsafe body(&value.pointee)
  }

  /// The same, or nil at once where somebody else has it.
  public func withLockIfAvailable<Result, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result? {
    guard unsafe pthread_mutex_trylock(mutex) == 0 else { return nil }
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try unsafe body(&value.pointee)
  }
}
