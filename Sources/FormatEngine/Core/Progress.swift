/// How far long work has come, and whether to go on. Calls come from any thread.
public struct Progress: Sendable {
  private let report: @Sendable (_ done: UInt64, _ total: UInt64) -> Void
  private let cancelled: @Sendable () -> Bool
  /// Somebody looks at it all the time: worth to find out first how much there is to do.
  public let isWatched: Bool

  /// `report` gets work done and work to do in the same unit; `isCancelled` is asked between steps.
  public init(
    isWatched: Bool = false,
    report: @escaping @Sendable (_ done: UInt64, _ total: UInt64) -> Void,
    isCancelled: @escaping @Sendable () -> Bool = { false }
  ) {
    self.isWatched = isWatched
    self.report = report
    self.cancelled = isCancelled
  }

  public static let none = Progress(report: { _, _ in })

  /// Says where the work is, and throws `cancelled` where it is not to go on.
  public func step(_ done: UInt64, of total: UInt64) throws(EngineError) {
    report(done, total)
    try proceed()
  }

  /// Throws `cancelled` where the work is not to go on.
  public func proceed() throws(EngineError) {
    if cancelled() { throw EngineError(.cancelled, "Cancelled") }
  }
}
