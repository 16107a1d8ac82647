import Glibc

/// Keeps changes of the same guest bytes apart, and reads from seeing one half done.
///
/// First in the lock order: it is taken before any layer's lock and held during data I/O.
/// `Synchronization` has no condition variable, so this wraps the one of pthread.
@safe public final class RangeLock: @unchecked Sendable {
  // @unchecked: `held` is only touched with `mutex` locked.
  private struct Held {
    var start: UInt64
    var end: UInt64
    var isExclusive: Bool
  }

  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let released: UnsafeMutablePointer<pthread_cond_t>
  private var held: [Held] = []
  private var waiterCount = 0

  public init() {
    unsafe mutex = .allocate(capacity: 1)
    unsafe released = .allocate(capacity: 1)
    unsafe pthread_mutex_init(mutex, nil)
    unsafe pthread_cond_init(released, nil)
    held.reserveCapacity(64)
  }

  deinit {
    unsafe pthread_cond_destroy(released)
    unsafe pthread_mutex_destroy(mutex)
    unsafe released.deallocate()
    unsafe mutex.deallocate()
  }

  /// Runs `body` while no one else holds any byte of `range` (shared holders may overlap each other).
  public func withRange<T>(
    _ range: Range<UInt64>, exclusive: Bool, _ body: () throws(EngineError) -> T
  ) throws(EngineError) -> T {
    lock(range, exclusive)
    defer { unlock(range, exclusive) }
    return try body()
  }

  private func lock(_ range: Range<UInt64>, _ exclusive: Bool) {
    unsafe pthread_mutex_lock(mutex)
    while held.contains(where: {
      $0.start < range.upperBound && range.lowerBound < $0.end && (exclusive || $0.isExclusive)
    }) {
      waiterCount += 1
      unsafe pthread_cond_wait(released, mutex)
      waiterCount -= 1
    }
    held.append(Held(start: range.lowerBound, end: range.upperBound, isExclusive: exclusive))
    unsafe pthread_mutex_unlock(mutex)
  }

  private func unlock(_ range: Range<UInt64>, _ exclusive: Bool) {
    unsafe pthread_mutex_lock(mutex)
    if let index = held.firstIndex(where: {
      $0.start == range.lowerBound && $0.end == range.upperBound && $0.isExclusive == exclusive
    }) {
      held.swapAt(index, held.count - 1)
      held.removeLast()
    }
    if waiterCount > 0 { unsafe pthread_cond_broadcast(released) }
    unsafe pthread_mutex_unlock(mutex)
  }
}
