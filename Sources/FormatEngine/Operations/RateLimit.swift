import Glibc

/// Makes threads wait so that together they move no more than some bytes in a second.
final class RateLimit: Sendable {
  private let bytesPerSecond: UInt64
  /// Nanoseconds of the clock at which what was let through until now is paid for.
  private let paidUntil = Guarded<UInt64>(0)

  /// `bytesPerSecond` must not be 0.
  init(bytesPerSecond: UInt64) { self.bytesPerSecond = bytesPerSecond }

  /// Waits until these bytes may pass. `pausing` is called now and then; what it throws ends the waiting.
  func wait(for byteCount: UInt64, pausing: () throws(EngineError) -> Void) throws(EngineError) {
    let now = HostClock.steadyNanoseconds
    let delay = paidUntil.withLock { paid in
      let start = max(paid, now)
      let cost = Double(byteCount) * 1e9 / Double(bytesPerSecond)
      // A year is long enough: more would overflow the clock.
      paid = start + UInt64(min(cost, 3.2e16))
      return start - now
    }
    let end = now + delay
    var position = now
    while position < end {
      try pausing()
      position = min(end, position + Self.pauseNanoseconds)
      var time = timespec(tv_sec: Int(position / 1_000_000_000), tv_nsec: Int(position % 1_000_000_000))
      while unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
    }
  }

  /// A tenth of a second.
  private static let pauseNanoseconds: UInt64 = 100_000_000
}
