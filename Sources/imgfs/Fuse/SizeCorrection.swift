internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// Has the kernel ask again how long a file is.
///
/// A kernel that keeps writes back keeps its own idea of a file's size, too: what somebody writes past the end of a disk
/// makes the file longer there, and nothing that a server answers makes it shorter again. Only ftruncate(2) does. So it
/// is called, through the mount, by a thread that answers no requests; the request that comes of it changes nothing, and
/// is answered with the true size.
///
final class SizeCorrection: Sendable {
  private struct State {
    /// Inode numbers of the files.
    var waiting: [UInt64] = []
    var isRunning = false
  }

  private let fileSystem: FileSystem
  private let threads: OwnThreads
  private let mountPoint: String
  private let state = Mutex(State())
  /// "major:minor" of the mount, when it is there.
  private let device = Mutex<String?>(nil)
  /// The thread that calls ftruncate; 0: none.
  private let thread = Atomic<pid_t>(0)

  init(_ fileSystem: FileSystem, _ threads: OwnThreads, mountPoint: String) {
    self.threads = threads
    self.fileSystem = fileSystem
    self.mountPoint = mountPoint
  }

  /// To be called when the tree is mounted, and nothing else can be mounted over it yet.
  func start() { device.withLock { $0 = MountEntry.find(at: mountPoint)?.device } }

  /// Whether a request of this thread comes from here.
  func isRunning(in thread: pid_t) -> Bool { thread != 0 && thread == self.thread.load(ordering: .acquiring) }

  /// Returns at once; the file's size is right a moment later.
  func correct(_ id: UInt64) {
    let mustStart = state.withLock { state in
      if !state.waiting.contains(id) { state.waiting.append(id) }
      defer { state.isRunning = true }
      return !state.isRunning
    }
    guard mustStart else { return }
    if !threads.run({ self.correctAll() }) { state.withLock { $0.isRunning = false } }
  }

  private func correctAll() {
    thread.store(gettid(), ordering: .releasing)
    while let id = next() { correctNow(id) }
  }

  private func next() -> UInt64? {
    state.withLock { state in
      if !state.waiting.isEmpty { return state.waiting.removeFirst() }
      thread.store(0, ordering: .releasing)
      state.isRunning = false
      return nil
    }
  }

  private func correctNow(_ id: UInt64) {
    guard let names = fileSystem.path(of: id), let size = try? fileSystem.attributes(of: id).byteCount,
      let device = device.withLock({ $0 })
    else { return }
    let path = ([mountPoint] + names.map { String(hostBytes: $0) }).joined(separator: "/")
    let descriptor = unsafe path.withHostBytes { unsafe open($0, O_WRONLY | O_NOFOLLOW | O_CLOEXEC) }
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // Something else may be mounted there by now.
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0, UInt64(status.st_ino) == id,
      device == "\(gnu_dev_major(UInt64(status.st_dev))):\(gnu_dev_minor(UInt64(status.st_dev)))"
    else { return }
    ftruncate(descriptor, off_t(clamping: size))
  }
}
