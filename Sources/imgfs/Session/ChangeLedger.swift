import FormatEngine
import Synchronization

/// Counts the changes of a disk, and which file of the tree they came through.
final class ChangeLedger: Sendable {
  private struct State {
    var total: UInt64 = 0
    var own: [ObjectIdentifier: UInt64] = [:]
  }

  private let state = Guarded(State())
  /// The same as `State.total`, for those who want nothing else.
  private let total = Atomic<UInt64>(0)

  /// Another number whenever the bytes of the disk may be others.
  var changes: UInt64 { total.load(ordering: .acquiring) }

  /// To be called after the bytes changed; `file` is what they were changed through, if it was one.
  func note(_ file: DiskFile?) {
    state.withLock { state in
      state.total += 1
      if let file { state.own[ObjectIdentifier(file), default: 0] += 1 }
      total.store(state.total, ordering: .releasing)
    }
  }

  /// How many changes did not come through `file`.
  func changesOfOthers(than file: DiskFile) -> UInt64 {
    state.withLock { $0.total - $0.own[ObjectIdentifier(file), default: 0] }
  }

  /// The file is gone; its place in memory may become another's.
  func forget(_ file: ObjectIdentifier) { state.withLock { _ = $0.own.removeValue(forKey: file) } }
}
