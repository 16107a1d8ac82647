internal import CLinux
import Glibc

/// The host's clocks.
public enum HostClock {
  /// The time of day, for formats that record when something was made.
  static var now: SnapshotDate {
    let now = time(of: CLOCK_REALTIME)
    return SnapshotDate(seconds: Int64(now.tv_sec), nanoseconds: UInt32(now.tv_nsec))
  }

  /// The time of day as nanoseconds since the Epoch, exact to some milliseconds, and cheap.
  public static var coarseNanoseconds: Int64 {
    let now = time(of: CLOCK_REALTIME_COARSE)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
  }

  /// Nanoseconds since some moment, on a clock that nobody sets.
  static var steadyNanoseconds: UInt64 {
    let now = time(of: CLOCK_MONOTONIC)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }

  /// The same in seconds.
  public static var steadySeconds: Double { Double(steadyNanoseconds) / 1e9 }

  /// Processor time that the calling thread has used, in seconds.
  public static var threadSeconds: Double {
    let used = time(of: CLOCK_THREAD_CPUTIME_ID)
    return Double(used.tv_sec) + Double(used.tv_nsec) / 1e9
  }

  private static func time(of clock: clockid_t) -> timespec {
    var time = timespec()
    _ = unsafe clock_gettime(clock, &time)
    return time
  }
}
