import FormatEngine
import Synchronization

/// Several images side by side: files that were named, and all images of folders that were. Each is opened when
/// somebody first looks at it, and closed when nobody has for a while; images that appear, change or go are noticed.
final class ImageShelf: Sendable {
  /// How an image of the shelf is opened, by its path.
  typealias Opening = @Sendable (_ path: String) throws(EngineError) -> ImageChain

  /// An image on the shelf, for as long as its file is the same.
  final class Item: Sendable {
    let path: String
    let session: ImageSession
    /// The file when the item was put on the shelf.
    let stamp: FileStamp

    fileprivate init(_ path: String, _ stamp: FileStamp, _ session: ImageSession) {
      (self.path, self.stamp, self.session) = (path, stamp, session)
    }

    /// Whether the file that has been found at the path is the one that this item shows.
    fileprivate func stands(for found: FileStamp) -> Bool {
      guard let shown = session.lastStamp else { return stamp == found }
      // What is open may be written by this very mount.
      return session.isOpen ? shown.isSameFile(as: found) : shown == found
    }
  }

  struct Settings: Sendable {
    var access = ImageSession.Access()
    /// Seconds after which an image that nobody uses is closed.
    var idleSeconds = 10.0
    /// Images that may be open although nobody uses them.
    var maximumIdleCount = 64
    /// The format that all images have; nil: each is probed.
    var format: String?
    /// Where the shelf is mounted, without links.
    var mountPoint = ""
  }

  private struct State {
    var items: [Item] = []
    var number: UInt64 = 0
    var scannedAt = -Double.infinity
    /// What was found out about files of folders, so that unchanged ones are not probed again.
    var isImage: [String: (stamp: FileStamp, answer: Bool)] = [:]
  }

  /// Seconds for which a look at the folders holds.
  private static let scanSeconds = 1.0

  let settings: Settings
  private let paths: [String]
  private let opening: Opening
  /// Held while the folders are looked through. Before the sessions' locks.
  private let state = Mutex(State())

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

  /// The images that are there now, in the order of the command line and of their names, and a number that is
  /// another one whenever the list is.
  func items() -> (items: [Item], number: UInt64) {
    state.withLock { state in
      if MonotonicClock.seconds - state.scannedAt >= Self.scanSeconds {
        scan(&state)
        state.scannedAt = MonotonicClock.seconds
      }
      return (state.items, state.number)
    }
  }

  private func scan(_ state: inout State) {
    let old = Dictionary(state.items.map { ($0.path, $0) }, uniquingKeysWith: { first, _ in first })
    let scanner = ShelfScanner(format: settings.format, mountPoint: settings.mountPoint)
    var items: [Item] = []
    var isImage: [String: (stamp: FileStamp, answer: Bool)] = [:]
    for path in paths {
      for found in scanner.files(at: path) {
        if found.isInFolder {
          let known = state.isImage[found.path]
          let answer = known?.stamp == found.stamp ? known?.answer : nil
          let settled = answer ?? scanner.isImage(found)
          isImage[found.path] = (found.stamp, settled)
          guard settled else { continue }
        }
        if let item = old[found.path], item.stands(for: found.stamp) {
          items.append(item)
        } else {
          items.append(Item(found.path, found.stamp, makeSession(found.path)))
        }
      }
    }
    state.isImage = isImage
    let isSame =
      items.count == state.items.count && zip(items, state.items).allSatisfy { $0 === $1 }
    if !isSame { (state.items, state.number) = (items, state.number + 1) }
  }

  private func makeSession(_ path: String) -> ImageSession {
    ImageSession(name: path, access: settings.access) { [weak self] () throws(EngineError) in
      guard let self else { throw EngineError(.cancelled, "The mount is ending") }
      self.makeRoom()
      return try self.opening(path)
    }
  }

  /// Closes what has been idle longest, where too much is open. Called while a session's lock is held: others are
  /// only closed where theirs is free.
  private func makeRoom() {
    let items = state.withLockIfAvailable { $0.items } ?? []
    let idle = items.compactMap { item in item.session.idleSecondsIfFree.map { (item, $0) } }
    guard idle.count >= settings.maximumIdleCount else { return }
    let longest = idle.sorted { $0.1 > $1.1 }.prefix(idle.count - settings.maximumIdleCount + 1)
    for (item, _) in longest { close(item, idleFor: 0) }
  }

  /// Closes what nobody has used for a while.
  func closeIdle() {
    for item in state.withLock({ $0.items }) { close(item, idleFor: settings.idleSeconds) }
  }

  private func close(_ item: Item, idleFor seconds: Double) {
    do throws(EngineError) {
      try item.session.closeIfIdle(for: seconds)
    } catch {
      Terminal.complain("Could not close '\(item.path)': \(error.message)")
    }
  }

  /// Closes all images for good.
  func close() throws(EngineError) {
    var failure: EngineError?
    for item in state.withLock({ $0.items }) {
      do throws(EngineError) {
        try item.session.close()
      } catch {
        failure = failure ?? error.whileTrying("Could not close '\(item.path)'")
      }
    }
    if let failure { throw failure }
  }

  /// Bytes of the disks that are open.
  var capacity: UInt64 {
    state.withLock({ $0.items }).reduce(0) { sum, item in
      sum.addingReportingOverflow(item.session.openByteCount).partialValue
    }
  }
}
