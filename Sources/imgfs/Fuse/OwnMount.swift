internal import CFuse
import FormatEngine
import Glibc

/// The mount as others see it, for our own threads that answer no requests: what they do makes some.
final class OwnMount: Sendable {
  private let fileSystem: FileSystem
  private let mountPoint: String
  /// The mount, when it is there.
  private let entry = Guarded<MountEntry?>(nil)
  /// The number of the mount that no other one ever has; nil where the kernel gives none.
  private let number = Guarded<UInt64?>(nil)
  /// The session's /dev/fuse, from `start` until the session goes.
  private let connection = Guarded<CInt?>(nil)
  /// Files of which writes out of the kernel's cache have failed, and why the last one did. Whether anybody has heard of
  /// that the kernel knows, of files that can be opened.
  private let lost = Guarded<[UInt64: EngineError]>([:])
  /// Threads that mean to make requests, and how many times over.
  private let asking = Guarded<[pid_t: Int]>([:])
  /// Takes what the kernel keeps of a file out of its cache, by the file's number: what is to be written is written then.
  private let dropping = Guarded<(@Sendable (UInt64) -> Void)?>(nil)

  init(_ fileSystem: FileSystem, at mountPoint: String) {
    self.fileSystem = fileSystem
    self.mountPoint = mountPoint
  }

  /// To be called when the tree is mounted; with nil before its session goes.
  func setDropping(_ body: (@Sendable (UInt64) -> Void)?) { dropping.withLock { $0 = body } }

  /// To be called when the tree has just been mounted: nothing else is mounted over it yet. `descriptor` is the session's
  /// /dev/fuse, and stays open as long as others call.
  func start(device descriptor: CInt) {
    connection.withLock { $0 = descriptor }
    entry.withLock { $0 = MountEntry.find(at: mountPoint) }
    number.withLock { $0 = Self.number(at: mountPoint) }
  }

  private static func number(at path: String, in folder: CInt = CInt(IMGFS_AT_FDCWD)) -> UInt64? {
    var number: UInt64 = 0
    return unsafe path.withHostBytes { unsafe imgfs_mount_number(folder, $0, &number) } == 0 ? number : nil
  }

  /// Takes away the mount at `path`, whoever still has files open there, if it is this one for certain, whatever happens to
  /// the name. False where it is another one, or none; nil where that is not known.
  func detach(at path: String) -> Bool? {
    guard let number = number.withLock({ $0 }) else { return nil }
    let flags = CInt(IMGFS_O_PATH) | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC
    let root = unsafe path.withHostBytes { unsafe open($0, flags) }
    guard root >= 0 else { return nil }
    defer { close(root) }
    guard let found = Self.number(at: "", in: root) else { return nil }
    guard found == number else { return false }
    return unsafe umount2("/proc/self/fd/\(root)", CInt(MNT_DETACH)) == 0 ? true : nil
  }

  /// "major:minor" of the mounted tree.
  var device: String? { entry.withLock { $0?.device } }

  var deviceNumber: (major: UInt32, minor: UInt32)? {
    let numbers = device?.split(separator: ":").compactMap { UInt32($0) } ?? []
    return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
  }

  /// To be called when a write to a file fails that comes out of the kernel's cache.
  func noteLostWrite(to id: UInt64, _ error: EngineError) {
    let isNews = lost.withLock { $0.updateValue(error, forKey: id) == nil }
    // Whoever writes through memory may not ask.
    if isNews { Terminal.complain("Something that was written is lost: \(error.message)", error.additions) }
  }

  // MARK: Our own requests

  /// Whether a request of a thread is to be answered: not where the thread is ours and does not mean to ask. It follows a
  /// name that leads here then, and those wait for it who would answer.
  func mayAsk(_ thread: pid_t) -> Bool {
    guard thread > 0, imgfs_is_thread(getpid(), thread) != 0 else { return true }
    return asking.withLock { $0[thread] != nil }
  }

  /// Runs `body`, which means to make requests.
  private func whileAsking<T>(_ body: () -> T) -> T {
    let thread = gettid()
    asking.withLock { $0[thread, default: 0] += 1 }
    defer {
      asking.withLock { asking in
        let count = asking[thread, default: 1] - 1
        asking[thread] = count > 0 ? count : nil
      }
    }
    return body()
  }

  /// Where the tree is now.
  enum Place: Equatable {
    /// A folder above it may have been renamed.
    case at(String)
    /// Something else is mounted over it here.
    case covered(String)
    case unmounted
  }

  /// The kernel gives the numbers of a mount that is gone to the next one, which may be anybody's: they are ours only if the
  /// connection still stands after they were read, or the kernel has a number for ours that no other mount gets. Where it has
  /// none, a mount that was cut off - by `umount --force`, through fusectl - counts as unmounted: whoever did that unmounts it.
  var place: Place {
    guard let entry = entry.withLock({ $0 }) else { return .at(mountPoint) }
    let entries = MountEntry.all()
    guard let own = entries.first(where: { $0.id == entry.id && $0.device == entry.device }),
      isConnected || isOurs(own.mountPoint)
    else { return .unmounted }
    let isOnTop = entries.last { $0.isMounted(at: own.mountPoint) }?.id == own.id
    return isOnTop ? .at(own.mountPoint) : .covered(own.mountPoint)
  }

  private func isOurs(_ path: String) -> Bool {
    guard let number = number.withLock({ $0 }) else { return false }
    return Self.number(at: path) == number
  }

  /// Whether the kernel may still have requests for us: it has none any more when nobody can get at the tree.
  private var isConnected: Bool {
    guard let descriptor = connection.withLock({ $0 }) else { return false }
    var state = pollfd(fd: descriptor, events: 0, revents: 0)
    return unsafe poll(&state, 1, 0) == 0
  }

  /// Opens a file that the kernel knows, runs `body` with its descriptor, and closes it. Nil where the file cannot be
  /// opened: its name may be another's, or something else mounted there by now.
  func withFile<T>(_ id: UInt64, _ flags: CInt, _ body: (CInt) -> T) -> T? {
    whileAsking { openFile(id, flags, body) }
  }

  private func openFile<T>(_ id: UInt64, _ flags: CInt, _ body: (CInt) -> T) -> T? {
    guard let names = fileSystem.path(of: id), let device,
      case .at(let root) = place
    else { return nil }
    let path = ([root] + names.map { String(hostBytes: $0) }).joined(separator: "/")
    let descriptor = unsafe path.withHostBytes { unsafe open($0, flags | O_NOFOLLOW | O_CLOEXEC) }
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0, UInt64(status.st_ino) == id,
      device == "\(gnu_dev_major(UInt64(status.st_dev))):\(gnu_dev_minor(UInt64(status.st_dev)))"
    else { return nil }
    return body(descriptor)
  }

  /// Has the kernel write what it keeps of the mounted files, and waits for that: file by file, since syncfs(2) may return
  /// before all of it has come here (seen with Linux 6.18.44). Who closes a file has written it. Nobody may be waiting for
  /// the result within a call that changes or seeks one of the files: the kernel locks those.
  ///
  /// A file that cannot be opened any more is taken from the kernel's cache by its number. Throws where something that was
  /// written before is lost, after all files.
  func writeOut() throws(EngineError) {
    var failure: EngineError?
    for id in fileSystem.openedForWriting() {
      let number = withFile(id, O_RDONLY) { fsync($0) == 0 ? 0 : errno }
      if number == nil { dropping.withLock { $0 }?(id) }
      let lost = lost.withLock { $0.removeValue(forKey: id) }
      guard let reason = number ?? lost?.errno, reason != 0 else { continue }
      failure = .systemCall("Not all could be written of what the kernel kept", errno: reason)
    }
    if let failure { throw failure }
  }

  /// The same for some files, without that lock; and nothing more than their bytes. Where it says false, the kernel may
  /// still have some of them.
  func sendOut(_ files: [UInt64]) -> Bool {
    files.allSatisfy { id in
      withFile(id, O_RDONLY) { sync_file_range($0, 0, 0, UInt32(IMGFS_SYNC_FILE_RANGE_ALL)) == 0 } ?? false
    }
  }
}
