internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// The mount as others see it, for our own threads that answer no requests: what they do makes some.
final class OwnMount: Sendable {
  private let fileSystem: FileSystem
  private let mountPoint: String
  /// "major:minor" of the mount, when it is there.
  private let device = Mutex<String?>(nil)

  init(_ fileSystem: FileSystem, at mountPoint: String) {
    self.fileSystem = fileSystem
    self.mountPoint = mountPoint
  }

  /// To be called when the tree is mounted, and nothing else can be mounted over it yet.
  func start() { device.withLock { $0 = MountEntry.find(at: mountPoint)?.device } }

  /// Opens a file that the kernel knows, runs `body` with its descriptor, and closes it. Nothing happens where the file
  /// cannot be opened, or where something else is mounted there by now.
  func withFile(_ id: UInt64, _ flags: CInt, _ body: (CInt) -> Void) {
    guard let names = fileSystem.path(of: id), let device = device.withLock({ $0 }) else { return }
    let path = ([mountPoint] + names.map { String(hostBytes: $0) }).joined(separator: "/")
    let descriptor = unsafe path.withHostBytes { unsafe open($0, flags | O_NOFOLLOW | O_CLOEXEC) }
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0, UInt64(status.st_ino) == id,
      device == "\(gnu_dev_major(UInt64(status.st_dev))):\(gnu_dev_minor(UInt64(status.st_dev)))"
    else { return }
    body(descriptor)
  }

  /// Has the kernel write what it keeps of the mounted files, and waits for that: file by file, since syncfs(2) may return
  /// before all of it has come here (seen with Linux 6.18.44).
  func writeOut() {
    for id in fileSystem.openedForWriting { withFile(id, O_RDONLY) { fsync($0) } }
  }
}
