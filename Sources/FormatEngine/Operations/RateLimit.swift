import Glibc
import Synchronization

/// Keeps work below so many bytes a second, over the whole of its time.
final class RateLimit: Sendable {
  private let bytesPerSecond: UInt64
  private let start = RateLimit.now()
  private let spent = Atomic<UInt64>(0)

  /// 0 is taken for 1.
  init(bytesPerSecond: UInt64) { self.bytesPerSecond = max(bytesPerSecond, 1) }

  /// Counts work that is done, and waits until it may go on.
  func spend(_ byteCount: UInt64) {
    let total = spent.add(byteCount, ordering: .relaxed).newValue
    let due = start + Double(total) / Double(bytesPerSecond)
    var rest = due - Self.now()
    while rest > 0 {
      // At most a second at a time: a huge number of seconds does not fit.
      let part = min(rest, 1)
      var time = timespec(tv_sec: Int(part), tv_nsec: Int((part - part.rounded(.down)) * 1e9))
      _ = unsafe nanosleep(&time, nil)
      rest = due - Self.now()
    }
  }

  /// Seconds of a clock that nobody sets.
  private static func now() -> Double {
    var time = timespec()
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
