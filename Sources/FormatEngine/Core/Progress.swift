/// How far long work has come, and whether to go on. Calls come from any thread.
public struct Progress: Sendable {
  private let report: @Sendable (_ done: UInt64, _ total: UInt64) -> Void
  private let cancelled: @Sendable () -> Bool

  /// `report` gets work done and work to do in the same unit; `isCancelled` is asked between steps.
  public init(
    report: @escaping @Sendable (_ done: UInt64, _ total: UInt64) -> Void,
    isCancelled: @escaping @Sendable () -> Bool = { false }
  ) {
    self.report = report
    self.cancelled = isCancelled
  }

  public static let none = Progress(report: { _, _ in })

  /// Says where the work is, and throws `cancelled` where it is not to go on.
  public func step(_ done: UInt64, of total: UInt64) throws(EngineError) {
    report(done, total)
    if cancelled() { throw EngineError(.cancelled, "Cancelled") }
  }
}
