import FormatEngine
import Glibc

/// By what a file is known again: another file in its place, and most changes, give another one.
struct FileStamp: Equatable, Sendable {
  /// What a file fails with that has become another.
  static let replacedErrno = ESTALE

  var device: UInt64 = 0
  var inode: UInt64 = 0
  /// 0 for devices, of which the system does not say it without opening them.
  var byteCount: UInt64 = 0
  var modified = FileTime(seconds: 0, nanoseconds: 0)

  /// Whether it is the same file, whatever was written to it.
  func isSameFile(as other: FileStamp) -> Bool { device == other.device && inode == other.inode }

  /// Of the first file of a member. All zeros where it is not a file of the host.
  init(_ member: ChainMember) {
    guard let file = member.hostFiles.first else { return }
    (device, inode) = (file.identity.device, file.identity.inode)
    byteCount = file.kind.isDevice ? 0 : (try? file.byteCount()) ?? 0
    if let time = try? file.modificationTime() {
      modified = FileTime(seconds: time.seconds, nanoseconds: time.nanoseconds)
    }
  }

  init(_ status: stat) {
    (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino))
    byteCount = UInt64(clamping: status.st_size)
    modified = FileTime(seconds: Int64(status.st_mtim.tv_sec), nanoseconds: Int64(status.st_mtim.tv_nsec))
  }
}
