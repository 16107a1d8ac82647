import FormatEngine

/// A disk, or a piece of one, as a file of the tree: opened when somebody first wants to read it, and let go of when
/// nobody reads it any more. An image may have thousands of snapshots.
final class DiskFile: Sendable {
  private struct State {
    weak var opened: OpenDisk?
    /// Bytes that are not known to be zeros, and how the disk was when they were counted.
    var allocated: (count: UInt64, changes: UInt64?, until: Double)?
    var isCounting = false
    /// As somebody set it, and how many changes of others there were then.
    var time: (time: FileTime, others: UInt64)?
    /// Changes of others that whoever opened it last has seen; nil: nobody has.
    var seenChanges: UInt64?
  }

  let view: DiskView
  /// Held while the disk is opened, so that it happens once. Before every lock of the engine.
  private let state = Guarded(State())

  init(_ view: DiskView) { self.view = view }

  deinit { view.session.ledger.forget(ObjectIdentifier(self)) }

  /// The opened disk, the same for all who have it open at one time.
  func opened() throws(EngineError) -> OpenDisk {
    try state.withLock { (state) throws(EngineError) in
      if let disk = state.opened { return disk }
      let disk = try OpenDisk(self)
      state.opened = disk
      return disk
    }
  }

  /// Bytes that are not known to be zeros, if they were counted before and the disk has not changed.
  var knownAllocatedByteCount: UInt64? { state.withLock { known($0) } }

  private func known(_ state: State) -> UInt64? {
    guard let allocated = state.allocated else { return nil }
    if allocated.changes == view.changes { return unlessWritten(allocated.count) }
    return HostClock.steadySeconds < allocated.until ? max(allocated.count, Self.leastByteCount) : nil
  }

  /// Bytes that are not known to be zeros. Of a disk that is being written they are counted now and then only: for
  /// twenty times as long as counting took they stay what they were. While one counts, others get the last number, nil
  /// where there is none yet.
  func allocatedByteCount() throws(EngineError) -> UInt64? {
    let disk = try opened()
    let (known, mustCount) = state.withLock { state -> (UInt64?, Bool) in
      if let count = self.known(state) { return (count, false) }
      if state.isCounting { return (state.allocated?.count, false) }
      state.isCounting = true
      return (nil, true)
    }
    guard mustCount else { return known }
    let changes = view.changes
    let start = HostClock.steadySeconds
    let (count, isExact) = disk.allocatedByteCount()
    let end = HostClock.steadySeconds
    state.withLock { state in
      state.allocated = (count, isExact ? changes : nil, end + 20 * (end - start))
      state.isCounting = false
    }
    return unlessWritten(count)
  }

  /// Never nothing, where the kernel may have something: programs take a file without blocks for one hole (tar).
  private func unlessWritten(_ count: UInt64) -> UInt64 {
    view.follows && view.session.writers.isAnybodyWriting ? max(count, Self.leastByteCount) : count
  }

  private static let leastByteCount: UInt64 = 4096

  private var changesOfOthers: UInt64 {
    view.follows ? view.session.ledger.changesOfOthers(than: self) : 0
  }

  /// Whether what the kernel keeps of the file is still true: asked once whenever it is opened.
  func keepsCache() -> Bool {
    let others = changesOfOthers
    return state.withLock { state in
      defer { state.seenChanges = others }
      return !view.isShared && (state.seenChanges ?? others) == others
    }
  }

  /// When it was changed last: as it was set, unless it was changed through another file since.
  func time(_ original: FileTime) -> FileTime {
    guard view.follows else { return original }
    let others = changesOfOthers
    if let set = state.withLock({ $0.time }), set.others == others { return set.time }
    return view.session.lastChange ?? original
  }

  func setTime(_ time: FileTime) {
    let others = changesOfOthers
    state.withLock { $0.time = (time, others) }
  }

  /// Throws EBUSY where the same bytes are open for writing in another file.
  func holdForWriting() throws(EngineError) -> DiskWriters.Hold {
    // What is added to the disk later is the whole disk's as well.
    try view.session.writers.hold(self, view.window ?? 0..<UInt64.max)
  }
}
