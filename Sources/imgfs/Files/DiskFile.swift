import FormatEngine
import Synchronization

/// A disk, or a piece of one, as a file of the tree: opened when somebody first wants to read it, and let go of when
/// nobody reads it any more. An image may have thousands of snapshots.
final class DiskFile: Sendable {
  private struct State {
    weak var opened: OpenDisk?
    /// Bytes that are not known to be zeros, and how the disk was when they were counted.
    var allocated: (count: UInt64, changes: UInt64, until: Double)?
    /// As somebody set it.
    var time: FileTime?
    /// Changes of others that whoever opened it last has seen.
    var seenChanges: UInt64 = 0
    var hasBeenOpened = false
  }

  let view: DiskView
  /// Changes that were made through this file.
  private let ownChanges = Atomic<UInt64>(0)
  /// Held while the disk is opened or walked, so that it happens once. Before every lock of the engine.
  private let state = Mutex(State())

  init(_ view: DiskView) { self.view = view }

  /// The opened disk, the same for all who have it open at one time.
  func opened() throws(EngineError) -> OpenDisk {
    try state.withLock { (state) throws(EngineError) in try opened(&state) }
  }

  private func opened(_ state: inout State) throws(EngineError) -> OpenDisk {
    if let disk = state.opened { return disk }
    let disk = try OpenDisk(self)
    state.opened = disk
    return disk
  }

  /// Whether somebody has it open.
  var isOpen: Bool { state.withLock { $0.opened != nil } }

  /// Bytes that are not known to be zeros, if they were counted before and the disk has not changed.
  var knownAllocatedByteCount: UInt64? { state.withLock { known($0) } }

  private func known(_ state: State) -> UInt64? {
    guard let allocated = state.allocated else { return nil }
    if allocated.changes == view.changes { return allocated.count }
    return MonotonicClock.seconds < allocated.until ? allocated.count : nil
  }

  /// Bytes that are not known to be zeros. Of a disk that is being written they are counted now and then only: for
  /// twenty times as long as counting took they stay what they were.
  func allocatedByteCount() throws(EngineError) -> UInt64 {
    try state.withLock { (state) throws(EngineError) in
      if let known = known(state) { return known }
      let changes = view.changes
      let start = MonotonicClock.seconds
      let count = try opened(&state).allocatedByteCount()
      let end = MonotonicClock.seconds
      state.allocated = (count, changes, end + 20 * (end - start))
      return count
    }
  }

  /// To be called with each `noteChange` of the session that comes from here.
  func noteOwnChange() { ownChanges.add(1, ordering: .relaxed) }

  /// Whether what the kernel keeps of the file is still true: asked once whenever it is opened.
  func keepsCache() -> Bool {
    let others = view.changes &- ownChanges.load(ordering: .relaxed)
    return state.withLock { state in
      defer { (state.seenChanges, state.hasBeenOpened) = (others, true) }
      return !view.isShared && (!state.hasBeenOpened || state.seenChanges == others)
    }
  }

  /// When it was changed last.
  func time(_ original: FileTime) -> FileTime {
    guard view.follows else { return original }
    return state.withLock { $0.time } ?? view.session.lastChange ?? original
  }

  func setTime(_ time: FileTime) { state.withLock { $0.time = time } }
}
