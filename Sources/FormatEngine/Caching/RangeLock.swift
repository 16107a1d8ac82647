import Glibc

/// Keeps changes of the same guest bytes apart, and reads from seeing one half done. Who comes first is served first: neither
/// many readers nor many writers keep the others out.
///
/// First in the lock order: it is taken before any layer's lock and held during data I/O. A thread that holds some bytes may
/// take them once more: it is not held back by those who wait, as they may be waiting for it.
public final class RangeLock: @unchecked Sendable {
  // @unchecked: all that changes is only touched inside `monitor.locked`.
  private struct Claim {
    var start: UInt64
    var end: UInt64
    var isExclusive: Bool
    var owner: pthread_t
    /// Of those who wait.
    var number: UInt64 = 0

    init(_ range: Range<UInt64>, isExclusive: Bool) {
      (start, end, self.isExclusive) = (range.lowerBound, range.upperBound, isExclusive)
      owner = pthread_self()
    }

    func conflicts(with other: Claim) -> Bool {
      start < other.end && other.start < end && (isExclusive || other.isExclusive)
    }
  }

  private let monitor = Monitor()
  private var held: [Claim] = []
  /// The oldest first.
  private var waiting: [Claim] = []
  private var lastNumber: UInt64 = 0

  public init() { held.reserveCapacity(64) }

  /// Runs `body` while no one else holds any byte of `range` (shared holders may overlap each other).
  public func withRange<T>(
    _ range: Range<UInt64>, exclusive: Bool, _ body: () throws(EngineError) -> T
  ) throws(EngineError) -> T {
    let claim = Claim(range, isExclusive: exclusive)
    lock(claim)
    defer { unlock(claim) }
    return try body()
  }

  /// Takes `range` for itself if nobody holds any of it, or waits for it; does not wait. `give` lets go of it.
  func take(_ range: Range<UInt64>) -> Bool {
    let claim = Claim(range, isExclusive: true)
    return monitor.locked {
      guard mayEnter(claim, behind: waiting.count) else { return false }
      held.append(claim)
      return true
    }
  }

  /// Lets go of what `take` took, whichever thread that was.
  func give(_ range: Range<UInt64>) { unlock(Claim(range, isExclusive: true)) }

  /// Called inside `monitor.locked`.
  private func mayEnter(_ claim: Claim, behind olderCount: Int) -> Bool {
    var isHolder = false
    for other in held {
      if other.conflicts(with: claim) { return false }
      if other.owner == claim.owner { isHolder = true }
    }
    return isHolder || !waiting.prefix(olderCount).contains { $0.conflicts(with: claim) }
  }

  private func lock(_ claim: Claim) {
    monitor.locked {
      if !mayEnter(claim, behind: waiting.count) { waitToEnter(claim) }
      held.append(claim)
    }
  }

  /// Called inside `monitor.locked`.
  private func waitToEnter(_ claim: Claim) {
    var claim = claim
    lastNumber += 1
    claim.number = lastNumber
    waiting.append(claim)
    while true {
      monitor.wait()
      // Only this thread takes it out of the list.
      guard let place = waiting.firstIndex(where: { $0.number == claim.number }) else { return }
      if mayEnter(claim, behind: place) {
        waiting.remove(at: place)
        return
      }
    }
  }

  private func unlock(_ claim: Claim) {
    monitor.locked {
      // Of shared ones that are alike each thread's own, since who holds one counts.
      if let index = held.firstIndex(where: {
        $0.start == claim.start && $0.end == claim.end && $0.isExclusive == claim.isExclusive
          && (claim.isExclusive || $0.owner == claim.owner)
      }) {
        held.swapAt(index, held.count - 1)
        held.removeLast()
      }
      if !waiting.isEmpty { monitor.wakeAll() }
    }
  }
}
