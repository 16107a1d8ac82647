import Glibc

/// The last run of data that was longer than what was asked for.
///
/// Some file systems look at every page up to the next hole (tmpfs does): whoever goes through a long run in steps would
/// pay for all of its rest at each of them.
struct KnownData {
  private var range: Range<UInt64> = 0..<0
  /// When the file was changed for the last time. Anybody may make a hole of what was data.
  private var changed = Moment(seconds: 0, nanoseconds: 0)

  struct Moment: Equatable {
    let seconds: Int
    let nanoseconds: Int
  }

  /// How much of the run is left from `offset` on; nil where nothing is known.
  func length(from offset: UInt64, _ status: stat) -> UInt64? {
    range.contains(offset) && changed == Moment(status) ? range.upperBound - offset : nil
  }

  /// The file was changed by its owner: what was data may be a hole, and the time of a change need not tell of the next one.
  mutating func forget() { range = 0..<0 }

  /// `status`: from before the run was looked for.
  mutating func remember(_ run: Range<UInt64>, _ status: stat) {
    range = run
    changed = Moment(status)
  }
}

extension KnownData.Moment {
  init(_ status: stat) {
    self.init(seconds: status.st_ctim.tv_sec, nanoseconds: status.st_ctim.tv_nsec)
  }
}
