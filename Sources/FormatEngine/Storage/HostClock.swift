internal import CLinux
import Glibc

/// The host's clock, for formats that record when something was made.
enum HostClock {
  static var now: SnapshotDate {
    var now = timespec()
    _ = unsafe clock_gettime(CLOCK_REALTIME, &now)
    return SnapshotDate(seconds: Int64(now.tv_sec), nanoseconds: UInt32(now.tv_nsec))
  }
}
