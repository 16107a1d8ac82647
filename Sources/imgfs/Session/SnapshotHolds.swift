import FormatEngine
import Glibc

/// Which snapshots of an image somebody has open: those are not deleted, and what is being deleted is not opened.
final class SnapshotHolds: Sendable {
  private struct State {
    var counts: [String: Int] = [:]
    var deleting: Set<String> = []
  }

  private let state = Guarded(State())

  /// A need of a snapshot; it ends with the object.
  final class Hold: Sendable {
    private let holds: SnapshotHolds
    private let key: String

    fileprivate init(_ holds: SnapshotHolds, _ key: String) { (self.holds, self.key) = (holds, key) }

    deinit {
      holds.state.withLock { state in
        let count = state.counts[key, default: 1] - 1
        state.counts[key] = count > 0 ? count : nil
      }
    }
  }

  func hold(_ key: String) throws(EngineError) -> Hold {
    try state.withLock { (state) throws(EngineError) in
      guard !state.deleting.contains(key) else { throw .system(ESTALE) }
      state.counts[key, default: 0] += 1
    }
    return Hold(self, key)
  }

  /// Runs `body` if nobody has the snapshot open; nobody opens it meanwhile.
  func deleting(_ key: String, _ body: () throws(EngineError) -> Void) throws(EngineError) {
    guard try ClosingDelay.waits({ () throws(EngineError) in begin(key) }) else {
      throw EngineError(.system(errno: EBUSY), "Somebody has the snapshot's disk open")
    }
    defer { _ = state.withLock { $0.deleting.remove(key) } }
    try body()
  }

  private func begin(_ key: String) -> Bool {
    state.withLock { $0.counts[key] == nil && $0.deleting.insert(key).inserted }
  }
}
