import FormatEngine
import Glibc
import Synchronization

/// Several images side by side: files that were named, and all images of folders that were. Each is opened when
/// somebody first looks at it, and closed when nobody has for a while; images that appear, change or go are noticed.
final class ImageShelf: Sendable {
  /// How an image of the shelf is opened, by its path.
  typealias Opening = @Sendable (_ path: String) throws(EngineError) -> ImageChain

  struct Settings: Sendable {
    var access = ImageSession.Access()
    /// Seconds after which an image that nobody uses is closed.
    var idleSeconds = 10.0
    /// Images that may be open although nobody uses them.
    var maximumIdleCount = 64
    /// Each image has an overlay without a name above it. What that holds is lost when it is closed: it stays open.
    var hasOverlays = false
    /// Seconds for which a look at the folders holds.
    var scanSeconds = 1.0
    /// The format that all images have; nil: each is probed.
    var format: String?
    /// What shows the shelf, once it is mounted.
    var servedTree = ServedTree()
    /// Which links are followed.
    var links = FolderLinks()
  }

  private struct State {
    var items: [Item] = []
    /// Items that are on the shelf no longer, and not closed for good yet.
    var leaving: [Item] = []
    var number: UInt64 = 0
    var scannedAt = -Double.infinity
    /// A thread is looking at the folders.
    var isScanning = false
    /// The shelf is closed.
    var hasEnded = false
    /// Items that were once not closed well, wherever they are now.
    var failed: [Item] = []
    /// What was found out about files of folders, so that unchanged ones are not probed again.
    var isImage: [String: (stamp: FileStamp, answer: Bool)] = [:]
  }

  /// Seconds for which what a look finds is waited for, before the last list is shown.
  private static let patience = 1.0

  let settings: Settings
  private let paths: [String]
  private let opening: Opening
  private let itemCounter = Atomic<UInt64>(0)
  /// An image has ended that may be on the shelf: the last look does not hold.
  private let wantsLook = Atomic<Bool>(false)
  /// Held while the folders are looked through, and while what is leaving is closed. Before `state`.
  private let scanning = Guarded(())
  /// Held for a look or a note only, and no other lock meanwhile.
  private let state = Guarded(State())

  /// Throws where one of the paths leads nowhere.
  init(_ paths: [String], _ settings: Settings, _ opening: @escaping Opening) throws(EngineError) {
    var found: [String] = []
    for path in paths {
      do throws(EngineError) {
        let real = try HostFiles.realPath(path)
        // Images go on being called what they were called.
        found.append(
          ShelfScanner.isFolderOfImages(path)
            ? real : ImageName.join(path, toFolderOf: HostFiles.currentFolder))
      } catch {
        throw EngineError(
          error.code, "Could not open '\(path)': \(EngineError.systemErrorText(error.errno))", path: path)
      }
    }
    (self.paths, self.settings, self.opening) = (found, settings, opening)
  }

  /// The images that were there at the last look at the folders, in the order of the command line and of their names, and
  /// a number that is a higher one whenever the list is another.
  var list: (items: [Item], number: UInt64) { state.withLock { ($0.items, $0.number) } }

  /// The same, after another look where the last one does not hold any more.
  func items() -> (items: [Item], number: UInt64) {
    scanIfDue()
    return list
  }

  /// Looks at the folders again where the last look does not hold any more. Only the first one is waited for however
  /// long it takes. The kernel may let but one request at a time into a folder: a disk that does not answer must not
  /// keep it there.
  func scanIfDue() {
    if state.withLock({ $0.scannedAt }) == -.infinity {
      scanning.withLock { _ in
        if isDue(state.withLock { $0.scannedAt }) { scan() }
      }
      return
    }
    let starts = state.withLock { state in
      guard !state.isScanning, !state.hasEnded, isDue(state.scannedAt) else { return false }
      state.isScanning = true
      return true
    }
    guard starts else { return }
    let look: @Sendable () -> Void = {
      self.scanning.withLock { _ in self.scan() }
      self.state.withLock { $0.isScanning = false }
    }
    // Nobody waits for it at the end, either: it may be waiting for a disk that is dead. What it finds then is not taken.
    guard DetachedThread.start(look) else { return look() }
    let end = HostClock.steadySeconds + Self.patience
    while state.withLock({ $0.isScanning }), HostClock.steadySeconds < end { usleep(100) }
  }

  private func isDue(_ scannedAt: Double) -> Bool {
    wantsLook.load(ordering: .acquiring) || HostClock.steadySeconds - scannedAt >= settings.scanSeconds
  }

  /// `scanning` is held.
  private func scan() {
    wantsLook.store(false, ordering: .sequentiallyConsistent)
    let (old, leaving, known) = state.withLock { ($0.items, $0.leaving, $0.isImage) }
    let scanner = ShelfScanner(
      format: settings.format, servedTree: settings.servedTree, links: settings.links)
    let found = paths.flatMap { scanner.files(at: $0) }
    var knownItems = KnownItems(old + leaving)
    // Those who keep their names come before those who got the name of another.
    let staying = found.map { knownItems.take(at: $0) }
    var items: [Item] = []
    var isImage: [String: (stamp: FileStamp, answer: Bool)] = [:]
    var isSame = true
    for (found, staying) in zip(found, staying) {
      if found.isInFolder {
        let answer = known[found.path].flatMap { $0.stamp == found.stamp ? $0.answer : nil }
        let settled = staying != nil || (answer ?? scanner.isImage(found))
        isImage[found.path] = (found.stamp, settled)
        guard settled else { continue }
      }
      let item = staying ?? knownItems.take(anywhere: found) ?? makeItem(found)
      if item.move(to: found.path) { isSame = false }
      items.append(item)
    }
    isSame = isSame && items.map(\.number) == old.map(\.number)
    let stayingNumbers = Set(items.map(\.number))
    let gone = (old + leaving).filter { !stayingNumbers.contains($0.number) }
    state.withLock { state in
      guard !state.hasEnded else { return }
      state.isImage = isImage
      state.leaving = gone
      if !isSame { (state.items, state.number) = (items, state.number + 1) }
      state.scannedAt = HostClock.steadySeconds
    }
  }

  private func makeItem(_ found: ShelfScanner.Found) -> Item {
    let place = Item.Place(found.path)
    let session = ImageSession(
      name: found.path, access: settings.access, imageDepth: settings.hasOverlays ? 1 : 0,
      filesAreOthers: { [weak self] in self?.wantsLook.store(true, ordering: .sequentiallyConsistent) }
    ) { [weak self] () throws(EngineError) in
      guard let self else { throw EngineError(.cancelled, "The mount is ending") }
      self.makeRoom()
      return try self.opening(place.path.withLock { $0 })
    }
    return Item(itemCounter.add(1, ordering: .relaxed).newValue, place, found.stamp, session)
  }

  /// Closes what has been idle longest, where too much is open. Called while a session is being opened: others are only
  /// closed where that needs no waiting.
  private func makeRoom() {
    let idle = list.items.compactMap { item in item.session.idleSecondsIfFree.map { (item, $0) } }
    guard idle.count >= settings.maximumIdleCount else { return }
    let longest = idle.sorted { $0.1 > $1.1 }.prefix(idle.count - settings.maximumIdleCount + 1)
    for (item, _) in longest { closeIfIdle(item, for: 0) }
  }

  /// Closes what nobody has used for a while; what has left the shelf, for good.
  func closeIdle() {
    for item in list.items { closeIfIdle(item, for: settings.idleSeconds) }
    // A look at the folders may put what has left back on the shelf.
    _ = scanning.withLockIfAvailable { _ in
      let leaving = state.withLock { $0.leaving }
      for item in leaving { closeIfIdle(item, for: settings.idleSeconds, forGood: true) }
      let rest = leaving.filter { !$0.session.hasEnded }
      state.withLock { $0.leaving = rest }
    }
  }

  private func closeIfIdle(_ item: Item, for seconds: Double, forGood: Bool = false) {
    do throws(EngineError) {
      // What is deleted nobody can look at again, and an overlay over it keeps its room.
      try item.session.closeIfIdle(for: seconds, forGood: forGood, onlyDeleted: settings.hasOverlays)
      item.hasComplained.store(false, ordering: .relaxed)
    } catch {
      let error = error.whileTrying("Could not close '\(item.path)'")
      if item.session.closingFailure != nil {
        // It may be on the shelf no longer when somebody asks.
        state.withLock { state in
          if !state.failed.contains(where: { $0 === item }) { state.failed.append(item) }
        }
      }
      // It is tried again and again.
      guard !item.hasComplained.exchange(true, ordering: .relaxed) else { return }
      Terminal.complain(error)
    }
  }

  /// Closes all images for good. Throws also where one was not closed well before.
  func close() throws(EngineError) {
    let items = state.withLock { state in
      state.hasEnded = true
      return state.items + state.leaving + state.failed
    }
    try forEach(items, "Could not close") { (session) throws(EngineError) in try session.close() }
  }

  /// Puts on disk what was written to any image. Throws also where one was not closed well, if no flush has said so yet.
  func flush() throws(EngineError) {
    let items = state.withLock { $0.items + $0.leaving + $0.failed }
    try forEach(items, "Could not write") { (session) throws(EngineError) in try session.flush() }
  }

  /// What fails for one is done for the others; the first error is thrown.
  private func forEach(
    _ items: [Item], _ attempt: String, _ body: (ImageSession) throws(EngineError) -> Void
  ) throws(EngineError) {
    var failure: EngineError?
    for item in items {
      do throws(EngineError) {
        try body(item.session)
      } catch {
        failure = failure ?? error.whileTrying("\(attempt) '\(item.path)'")
      }
    }
    if let failure { throw failure }
  }

  /// Bytes of the disks that are open.
  var capacity: UInt64 {
    list.items.reduce(0) { sum, item in sum.addingReportingOverflow(item.session.openByteCount).partialValue }
  }
}
