internal import CLinux
import Glibc

/// The host's clock, for formats that record when something was made.
enum HostClock {
  /// Seconds since 1970-01-01 00:00 UTC.
  static var secondsSince1970: Int64 {
    var now = timespec()
    _ = unsafe clock_gettime(CLOCK_REALTIME, &now)
    return Int64(now.tv_sec)
  }
}
