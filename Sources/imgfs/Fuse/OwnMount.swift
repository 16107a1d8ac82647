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

  /// Opens a file that the kernel knows, runs `body` with its descriptor, and closes it. False where that is, and where
  /// the file cannot be opened: its name may be another's, or something else mounted there by now.
  func withFile(_ id: UInt64, _ flags: CInt, _ body: (CInt) -> Bool) -> Bool {
    guard let names = fileSystem.path(of: id), let device = device.withLock({ $0 }) else { return false }
    let path = ([mountPoint] + names.map { String(hostBytes: $0) }).joined(separator: "/")
    let descriptor = unsafe path.withHostBytes { unsafe open($0, flags | O_NOFOLLOW | O_CLOEXEC) }
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0, UInt64(status.st_ino) == id,
      device == "\(gnu_dev_major(UInt64(status.st_dev))):\(gnu_dev_minor(UInt64(status.st_dev)))"
    else { return false }
    return body(descriptor)
  }

  /// Has the kernel write what it keeps of the mounted files, and waits for that: file by file, since syncfs(2) may return
  /// before all of it has come here (seen with Linux 6.18.44). Who closes a file has written it. Nobody may be waiting for
  /// the result within a call that changes or seeks one of the files: the kernel locks those.
  func writeOut() {
    for id in fileSystem.openedForWriting() { _ = withFile(id, O_RDONLY) { fsync($0) == 0 } }
  }

  /// The same for some files, without that lock; and nothing more than their bytes. Where it says false, the kernel may
  /// still have some of them.
  func sendOut(_ files: [UInt64]) -> Bool {
    files.allSatisfy { id in
      withFile(id, O_RDONLY) { sync_file_range($0, 0, 0, UInt32(IMGFS_SYNC_FILE_RANGE_ALL)) == 0 }
    }
  }
}
