// timespec is in the headers of both; which of them has it for the compiler depends on the order of files.
internal import CFuse
import Glibc

/// The clocks of the machine.
enum MonotonicClock {
  /// Seconds since some moment, never set back.
  static var seconds: Double {
    let time = now(CLOCK_MONOTONIC)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  /// Nanoseconds since the Epoch, as files record them: exact to some milliseconds.
  static var wallNanoseconds: Int64 {
    let time = now(CLOCK_REALTIME_COARSE)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  private static func now(_ clock: clockid_t) -> timespec {
    var time = timespec()
    _ = unsafe clock_gettime(clock, &time)
    return time
  }
}
