import FormatEngine
import Glibc
import Synchronization

/// An image of the mount, from when somebody first looks at it. One that stands alone is open from the start and for as
/// long as it is mounted; where there are several, those that nobody uses are closed, and opened again on demand.
///
/// Lock order: a folder's, disk's or text's own lock -> `passage` -> `state` -> the engine's locks.
final class ImageSession: Sendable {
  /// What may be done to the image.
  struct Access: Equatable, Sendable {
    var isWritable = false
    /// Whether the disk may lose its end.
    var mayShrink = false
    /// What is read may be stale: somebody else may be writing the image.
    var isShared = false
  }

  private struct State {
    var chain: ImageChain?
    /// The chain is being closed: its files may still change.
    var isClosing = false
    /// It was closed for good.
    var hasEnded = false
    /// Those who need the chain to stay open.
    var useCount = 0
    /// Those who ever did.
    var totalUseCount: UInt64 = 0
    /// Those of them who need it to stay the same.
    var pinCount = 0
    /// When the last of them went, in seconds of the monotonic clock.
    var idleSince = 0.0
    /// The files of the chain when it was first opened, or after this mount's own writes: they must still be the same
    /// whenever it is opened or closed.
    var stamps: ChainStamps?
    /// How many changes there were when it was opened.
    var changesAtOpening: UInt64 = 0
    /// Why it was not closed well: what it did not get on disk then is lost.
    var closingFailure: EngineError?
    /// The same, as long as no flush has told it.
    var untoldFailure: EngineError?
  }

  let access: Access
  /// As the user gave it, for messages.
  let name: String
  private let opening: @Sendable () throws(EngineError) -> ImageChain
  /// Called when it has ended because its files are others.
  private let filesAreOthers: @Sendable () -> Void
  /// How many members of the chain are above the image itself.
  private let imageDepth: Int
  /// Held while the image is opened or closed, however long that takes.
  private let passage = Guarded(())
  /// Held for a look or a note only.
  private let state: Guarded<State>
  /// What changes the bytes of the disk.
  let ledger = ChangeLedger()
  /// Which files of the disk are open for writing.
  let writers = DiskWriters()
  /// Counts what changes the shape of the tree: snapshots, sizes, layers.
  private let shapeCounter = Atomic<UInt64>(0)
  /// Counts the chains that were put in the place of others.
  private let chainCounter = Atomic<UInt64>(0)
  /// Seconds and nanoseconds of the last change, as nanoseconds since the Epoch; 0: none yet.
  private let changeTime = Atomic<Int64>(0)
  /// Snapshots of the image that somebody has open.
  let snapshotHolds = SnapshotHolds()
  /// Held shared by whoever uses the chain for a moment, and alone by whoever puts another chain in its place. Nil where
  /// the chain stays what it is.
  private let gate: Gate?

  /// An image that `open` opens on demand, with `imageDepth` members above it. Where it finds other files than before,
  /// or somebody else has changed them, it ends, and `filesAreOthers` is called.
  init(
    name: String, access: Access = Access(), imageDepth: Int = 0,
    filesAreOthers: @escaping @Sendable () -> Void = {},
    open: @escaping @Sendable () throws(EngineError) -> ImageChain
  ) {
    self.filesAreOthers = filesAreOthers
    self.name = name
    self.access = access
    self.imageDepth = imageDepth
    gate = nil
    opening = open
    state = Guarded(State())
  }

  /// An image that is open already, until it is closed for good.
  init(_ chain: ImageChain, access: Access = Access(), replacesChain: Bool = false) {
    let name = chain.members[0].path
    self.name = name
    self.access = access
    imageDepth = 0
    gate = replacesChain ? Gate() : nil
    filesAreOthers = {}
    opening = { () throws(EngineError) in throw EngineError(.cancelled, "'\(name)' is closed") }
    state = Guarded(State(chain: chain))
  }

  /// Whether the chain may become another one while it is in use.
  var replacesChain: Bool { gate != nil }

  // MARK: Using the chain

  /// Keeps the image open for as long as the result lives, and with `pinning` keeps its chain from becoming another one.
  func use(pinning: Bool = false) throws(EngineError) -> ImageUse {
    // Not while the chain is becoming another one.
    if pinning, let gate { return try gate.shared { () throws(EngineError) in try takeUse(pinning: true) } }
    return try takeUse(pinning: pinning)
  }

  private func takeUse(pinning: Bool) throws(EngineError) -> ImageUse {
    let chain = try opened { state in
      state.useCount += 1
      state.totalUseCount += 1
      if pinning { state.pinCount += 1 }
    }
    return ImageUse(self, gate == nil || pinning ? chain : nil, isPinning: pinning)
  }

  /// Runs `body` with the image open, and the chain as it is now.
  func withChain<T>(_ body: (ImageChain) throws(EngineError) -> T) throws(EngineError) -> T {
    guard let gate else {
      let use = try use()
      defer { withExtendedLifetime(use) {} }
      guard let chain = use.chain else { throw .system(EIO) }
      return try body(chain)
    }
    return try gate.shared { () throws(EngineError) in
      try body(try opened { _ in })
    }
  }

  /// The chain, which is opened where it is not; `note` is run in the moment in which it is found open.
  private func opened(_ note: (inout State) -> Void) throws(EngineError) -> ImageChain {
    if let chain = try openChain(note) { return chain }
    return try passage.withLock { (_) throws(EngineError) in
      // Somebody else may have opened it meanwhile.
      if let chain = try openChain(note) { return chain }
      let chain = try opening()
      let stamps = ChainStamps(chain)
      let isSame = state.withLock { state in
        guard state.stamps == nil || state.stamps == stamps else {
          // Nobody uses it, and nobody ever can.
          state.hasEnded = true
          return false
        }
        (state.chain, state.stamps, state.changesAtOpening) = (chain, stamps, changes)
        note(&state)
        return true
      }
      guard isSame else {
        try? chain.close()
        filesAreOthers()
        throw EngineError(
          .system(errno: FileStamp.replacedErrno), "'\(name)' has been changed by somebody else")
      }
      return chain
    }
  }

  private func openChain(_ note: (inout State) -> Void) throws(EngineError) -> ImageChain? {
    try state.withLock { (state) throws(EngineError) in
      if state.hasEnded {
        throw EngineError(.system(errno: FileStamp.replacedErrno), "'\(name)' is closed")
      }
      if state.chain != nil { note(&state) }
      return state.chain
    }
  }

  fileprivate func endUse(isPinning: Bool) {
    state.withLock { state in
      state.useCount -= 1
      if isPinning { state.pinCount -= 1 }
      if state.useCount == 0 { state.idleSince = HostClock.steadySeconds }
    }
  }

  private var isPinned: Bool { state.withLock { $0.pinCount > 0 } }
  /// How many need the chain as it is.
  var useCount: Int { state.withLock { $0.useCount } }
  var isOpen: Bool { sight.isOpen }
  /// Guest bytes of the disk, 0 where it is not open.
  var openByteCount: UInt64 { state.withLock { $0.chain }?.virtualSize ?? 0 }

  /// What there is to see of the image's own file.
  struct Sight: Equatable {
    /// Whether this mount may be writing it.
    var isOpen: Bool
    /// When it was first opened, or last written by this mount; nil: it never was open.
    var stamp: FileStamp?
  }

  var sight: Sight {
    state.withLock { state in
      Sight(
        isOpen: state.chain != nil || state.isClosing, stamp: state.stamps?.ownFile(ofMemberAt: imageDepth))
    }
  }

  /// Whether it is closed for good.
  var hasEnded: Bool { state.withLock { $0.hasEnded } }
  /// Why it was once not closed well, if it was: what it did not get on disk then is lost.
  var closingFailure: EngineError? { state.withLock { $0.closingFailure } }

  /// Runs `body` while nobody uses the chain, and puts the one that it gives in its place: what the disk reads as must
  /// not change by that. Where somebody has a lower layer or a snapshot open, it is not run.
  func replacingChain(_ body: () -> (ImageChain, EngineError?)) throws(EngineError) {
    guard let gate else { throw .notPermitted("The chain stays what it is") }
    // Outside of the gate, so that closings can be told.
    var failure: EngineError?
    let isDone = try ClosingDelay.waits { () throws(EngineError) in
      if isPinned { return false }
      return try gate.alone { () throws(EngineError) in
        if isPinned { return false }
        let (chain, error) = body()
        state.withLock { $0.chain = chain }
        failure = error
        return true
      }
    }
    guard isDone else {
      throw EngineError(.system(errno: EBUSY), "Somebody has a file below 'layers' or 'snapshots' open")
    }
    chainCounter.add(1, ordering: .releasing)
    noteShape()
    if let failure { throw failure }
  }

  // MARK: Its end

  /// Closes the image if nobody uses it and nobody has for `seconds`; it is opened again on demand, unless it is
  /// closed `forGood` or somebody else has changed its files. What was written is put on disk first: where that fails,
  /// the image stays open. Nor is it closed where somebody is just opening or closing it, or with `onlyDeleted` as long as
  /// its own file has a name.
  func closeIfIdle(for seconds: Double, forGood: Bool = false, onlyDeleted: Bool = false)
    throws(EngineError)
  {
    _ = try passage.withLockIfAvailable { (_) throws(EngineError) in
      let idle = state.withLock { state -> (chain: ImageChain, useCount: UInt64)? in
        guard let chain = state.chain else {
          if forGood { state.hasEnded = true }
          return nil
        }
        guard state.useCount == 0, HostClock.steadySeconds - state.idleSince >= seconds else { return nil }
        return (chain, state.totalUseCount)
      }
      guard let idle, !onlyDeleted || isDeleted(idle.chain) else { return }
      try idle.chain.flush()
      let stamps = ChainStamps(idle.chain)
      let isOurs: Bool? = state.withLock { state in
        // Somebody may have written since.
        guard state.useCount == 0, state.totalUseCount == idle.useCount else { return nil }
        let isOurs = stamps.areOurs(since: state.stamps, hasWritten: state.changesAtOpening != changes)
        (state.chain, state.isClosing, state.hasEnded) = (nil, true, forGood || !isOurs)
        return isOurs
      }
      guard let isOurs else { return }
      defer { if !isOurs { filesAreOthers() } }
      try close(idle.chain, stamps)
    }
  }

  /// Whether the image's own file has no name any more: it never has one again.
  private func isDeleted(_ chain: ImageChain) -> Bool {
    guard chain.members.indices.contains(imageDepth) else { return false }
    let member = chain.members[imageDepth]
    // Some file systems count no links at all.
    return member.fileStatuses.first?.linkCount == 0
      && member.hostFiles.first?.identity != HostFiles.identity(of: member.path)
  }

  /// Closes a chain that nobody can come by any more, whose files were as `stamps` has them before.
  private func close(_ chain: ImageChain, _ stamps: ChainStamps) throws(EngineError) {
    var failure: EngineError?
    var closed = stamps
    do throws(EngineError) {
      // Closing may write into the file on top. Afterwards others may, too.
      try chain.close { if chain.isWritable { closed = stamps.withTop(of: ChainStamps(chain)) } }
    } catch {
      failure = error
    }
    state.withLock { state in
      (state.stamps, state.isClosing) = (closed, false)
      state.closingFailure = failure ?? state.closingFailure
      state.untoldFailure = failure ?? state.untoldFailure
    }
    if let failure { throw failure }
  }

  /// Puts on disk what was written, where the image is open, and waits where it is being closed. Throws also where it was
  /// once not closed well, if it has not said so yet.
  func flush() throws(EngineError) {
    if let gate {
      try gate.shared { () throws(EngineError) in try flushOpenChain() }
    } else {
      try flushOpenChain()
    }
    if state.withLock({ $0.isClosing }) { passage.withLock { _ in } }
    let failure = state.withLock { state in
      defer { state.untoldFailure = nil }
      return state.untoldFailure
    }
    if let failure { throw failure }
  }

  private func flushOpenChain() throws(EngineError) {
    let open = state.withLock { state in
      if state.chain != nil { state.useCount += 1 }
      return state.chain
    }
    guard let open else { return }
    defer { endUse(isPinning: false) }
    try open.flush()
  }

  /// How long nobody has used it; nil while somebody does, and where it is not open.
  var idleSecondsIfFree: Double? {
    state.withLock { state in
      state.chain == nil || state.useCount > 0 ? nil : HostClock.steadySeconds - state.idleSince
    }
  }

  /// Closes the image for good: all that was ever written is on disk when it returns without an error, and nobody opens it
  /// again.
  func close() throws(EngineError) {
    try passage.withLock { (_) throws(EngineError) in
      let chain = state.withLock { state in
        state.hasEnded = true
        defer { state.chain = nil }
        return state.chain
      }
      try chain?.close()
      if let closingFailure { throw closingFailure }
    }
  }

  // MARK: What changes

  /// Another number whenever the disk's bytes may be others.
  var changes: UInt64 { ledger.changes }
  /// Another number whenever the tree may look another way.
  var shape: UInt64 { shapeCounter.load(ordering: .acquiring) }

  /// Another number whenever the layers below the top may be others.
  var chainNumber: UInt64 { chainCounter.load(ordering: .acquiring) }

  /// To be called after the bytes of the disk were changed, through `file` if it was one.
  func noteChange(_ file: DiskFile? = nil) {
    changeTime.store(HostClock.coarseNanoseconds, ordering: .relaxed)
    ledger.note(file)
  }

  /// To be called after the shape was changed.
  func noteShape(_ file: DiskFile? = nil) {
    shapeCounter.add(1, ordering: .releasing)
    noteChange(file)
  }

  /// When the disk was last written through this mount, nil where it was not.
  var lastChange: FileTime? {
    let nanoseconds = changeTime.load(ordering: .relaxed)
    return nanoseconds > 0 ? FileTime(nanosecondsSinceEpoch: nanoseconds) : nil
  }
}

/// Somebody's need of an open image; it ends with the object.
final class ImageUse: Sendable {
  let session: ImageSession
  /// The session's chain, which stays what it is; nil where it may become another one, which nobody is to hold on to.
  let chain: ImageChain?

  private let isPinning: Bool

  fileprivate init(_ session: ImageSession, _ chain: ImageChain?, isPinning: Bool) {
    self.session = session
    self.chain = chain
    self.isPinning = isPinning
  }

  deinit { session.endUse(isPinning: isPinning) }
}
