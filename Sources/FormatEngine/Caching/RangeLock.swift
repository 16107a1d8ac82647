/// Keeps changes of the same guest bytes apart, and reads from seeing one half done.
///
/// First in the lock order: it is taken before any layer's lock and held during data I/O.
public final class RangeLock: @unchecked Sendable {
  // @unchecked: `held` is only touched inside `monitor.locked`.
  private struct Held {
    var start: UInt64
    var end: UInt64
    var isExclusive: Bool
  }

  private let monitor = Monitor()
  private var held: [Held] = []
  private var waiterCount = 0

  public init() { held.reserveCapacity(64) }

  /// Runs `body` while no one else holds any byte of `range` (shared holders may overlap each other).
  public func withRange<T>(
    _ range: Range<UInt64>, exclusive: Bool, _ body: () throws(EngineError) -> T
  ) throws(EngineError) -> T {
    lock(range, exclusive)
    defer { unlock(range, exclusive) }
    return try body()
  }

  /// Takes `range` for itself if nobody holds any of it; does not wait. `give` lets go of it.
  func take(_ range: Range<UInt64>) -> Bool {
    monitor.locked {
      if isHeld(range, exclusive: true) { return false }
      held.append(Held(start: range.lowerBound, end: range.upperBound, isExclusive: true))
      return true
    }
  }

  /// Lets go of what `take` took.
  func give(_ range: Range<UInt64>) { unlock(range, true) }

  /// Called inside `monitor.locked`.
  private func isHeld(_ range: Range<UInt64>, exclusive: Bool) -> Bool {
    held.contains {
      $0.start < range.upperBound && range.lowerBound < $0.end && (exclusive || $0.isExclusive)
    }
  }

  private func lock(_ range: Range<UInt64>, _ exclusive: Bool) {
    monitor.locked {
      while isHeld(range, exclusive: exclusive) {
        waiterCount += 1
        monitor.wait()
        waiterCount -= 1
      }
      held.append(Held(start: range.lowerBound, end: range.upperBound, isExclusive: exclusive))
    }
  }

  private func unlock(_ range: Range<UInt64>, _ exclusive: Bool) {
    monitor.locked {
      if let index = held.firstIndex(where: {
        $0.start == range.lowerBound && $0.end == range.upperBound && $0.isExclusive == exclusive
      }) {
        held.swapAt(index, held.count - 1)
        held.removeLast()
      }
      if waiterCount > 0 { monitor.wakeAll() }
    }
  }
}
