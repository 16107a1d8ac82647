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
    /// The files of the chain when it was last opened or closed: they must still be the same when it is opened again.
    var stamps: [FileStamp]?
  }

  let access: Access
  /// As the user gave it, for messages.
  let name: String
  private let opening: @Sendable () throws(EngineError) -> ImageChain
  /// How many members of the chain are above the image itself.
  private let imageDepth: Int
  /// Held while the image is opened or closed, however long that takes.
  private let passage = Mutex(())
  /// Held for a look or a note only.
  private let state: Mutex<State>
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

  /// An image that `open` opens on demand, with `imageDepth` members above it.
  init(
    name: String, access: Access = Access(), imageDepth: Int = 0,
    open: @escaping @Sendable () throws(EngineError) -> ImageChain
  ) {
    self.name = name
    self.access = access
    self.imageDepth = imageDepth
    gate = nil
    opening = open
    state = Mutex(State())
  }

  /// An image that is open already, until it is closed for good.
  init(_ chain: ImageChain, access: Access = Access(), replacesChain: Bool = false) {
    let name = chain.members[0].path
    self.name = name
    self.access = access
    imageDepth = 0
    gate = replacesChain ? Gate() : nil
    opening = { () throws(EngineError) in throw EngineError(.cancelled, "'\(name)' is closed") }
    state = Mutex(State(chain: chain))
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
      let stamps = chain.members.map { FileStamp($0) }
      let isSame = state.withLock { state in
        guard state.stamps == nil || state.stamps == stamps else { return false }
        (state.chain, state.stamps) = (chain, stamps)
        note(&state)
        return true
      }
      guard isSame else {
        try? chain.close()
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
      if state.useCount == 0 { state.idleSince = MonotonicClock.seconds }
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
    /// When it was last opened or closed; nil: it never was.
    var stamp: FileStamp?
  }

  var sight: Sight {
    state.withLock { state in
      let stamps = state.stamps ?? []
      return Sight(
        isOpen: state.chain != nil || state.isClosing,
        stamp: stamps.indices.contains(imageDepth) ? stamps[imageDepth] : nil)
    }
  }

  /// Whether it is closed for good.
  var hasEnded: Bool { state.withLock { $0.hasEnded } }

  /// Runs `body` while nobody uses the chain, and puts the one that it gives in its place: what the disk reads as must
  /// not change by that. Where somebody has a lower layer or a snapshot open, it is not run.
  func replacingChain(_ body: () -> (ImageChain, EngineError?)) throws(EngineError) {
    guard let gate else { throw .notPermitted("The chain stays what it is") }
    // For a second: the kernel tells of a file's closing only after whoever closed it goes on. Outside of the gate, so that
    // it can be told.
    for _ in 0..<200 {
      var failure: EngineError?
      let isDone =
        isPinned
        ? false
        : try gate.alone { () throws(EngineError) in
          if isPinned { return false }
          let (chain, error) = body()
          state.withLock { $0.chain = chain }
          failure = error
          return true
        }
      if isDone {
        chainCounter.add(1, ordering: .releasing)
        noteShape()
        if let failure { throw failure }
        return
      }
      usleep(5_000)
    }
    throw EngineError(.system(errno: EBUSY), "Somebody has a file below 'layers' or 'snapshots' open")
  }

  // MARK: Its end

  /// Closes the image if nobody uses it and nobody has for `seconds`; it is opened again on demand, unless it is
  /// closed `forGood`. What was written is put on disk first: where that fails, the image stays open. Nor is it closed
  /// where somebody is just opening or closing it.
  func closeIfIdle(for seconds: Double, forGood: Bool = false) throws(EngineError) {
    _ = try passage.withLockIfAvailable { (_) throws(EngineError) in
      let idle = state.withLock { state -> (chain: ImageChain, useCount: UInt64)? in
        guard let chain = state.chain else {
          if forGood { state.hasEnded = true }
          return nil
        }
        guard state.useCount == 0, MonotonicClock.seconds - state.idleSince >= seconds else { return nil }
        return (chain, state.totalUseCount)
      }
      guard let idle else { return }
      try idle.chain.flush()
      let isStillIdle = state.withLock { state in
        // Somebody may have written since.
        guard state.useCount == 0, state.totalUseCount == idle.useCount else { return false }
        (state.chain, state.isClosing, state.hasEnded) = (nil, true, forGood)
        return true
      }
      guard isStillIdle else { return }
      defer {
        let stamps = idle.chain.members.map { FileStamp($0) }
        state.withLock { ($0.stamps, $0.isClosing) = (stamps, false) }
      }
      try idle.chain.close()
    }
  }

  /// How long nobody has used it; nil while somebody does, and where it is not open.
  var idleSecondsIfFree: Double? {
    state.withLock { state in
      state.chain == nil || state.useCount > 0 ? nil : MonotonicClock.seconds - state.idleSince
    }
  }

  /// Closes the image for good: all that was written is on disk when it returns, and nobody opens it again.
  func close() throws(EngineError) {
    try passage.withLock { (_) throws(EngineError) in
      let chain = state.withLock { state in
        state.hasEnded = true
        defer { state.chain = nil }
        return state.chain
      }
      try chain?.close()
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
    changeTime.store(MonotonicClock.wallNanoseconds, ordering: .relaxed)
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
    guard nanoseconds > 0 else { return nil }
    return FileTime(seconds: nanoseconds / 1_000_000_000, nanoseconds: nanoseconds % 1_000_000_000)
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
