internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// What every callback needs; libfuse hands it back as the session's user data.
final class FuseContext: Sendable {
  /// Large requests have 1 MiB; what is larger gets a buffer of its own.
  static let bufferByteCount = Int(MiB)
  /// Nothing changes while the tree is mounted, so the kernel may keep what it knows for a day.
  static let cacheSeconds = 86_400.0

  let fileSystem: FileSystem
  let userID: uid_t
  let groupID: gid_t
  let umask: mode_t
  let buffers = BufferPool(bufferByteCount: bufferByteCount)
  /// What the root's extended attribute says: the process that serves the tree.
  let process: ServingProcess
  /// Called once, when the kernel begins to talk to us: the mount is ready.
  private let whenReady: @Sendable () -> Void

  init(
    _ fileSystem: FileSystem, _ options: MountOptions, process: ServingProcess,
    whenReady: @escaping @Sendable () -> Void
  ) {
    self.fileSystem = fileSystem
    self.process = process
    self.whenReady = whenReady
    userID = options.userID ?? getuid()
    groupID = options.groupID ?? getgid()
    umask = options.umask
  }

  /// Agrees with the kernel on what both can do.
  func start(_ connection: inout fuse_conn_info) {
    let wanted =
      FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_SPLICE_WRITE
      | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_EXPLICIT_INVAL_DATA
    connection.want |= UInt32(wanted) & connection.capable
    // Requests come by read(2): a pipe in between only pays for large writes, which there are none of.
    connection.want &= ~UInt32(FUSE_CAP_SPLICE_READ | FUSE_CAP_AUTO_INVAL_DATA)
    // It also bounds reads. A reply passes through a pipe, and only root may have pipes of more than 1 MiB.
    connection.max_write = geteuid() == 0 ? UInt32(MiB) : UInt32(MiB / 2)
    whenReady()
  }

  func status(of attributes: Attributes) -> stat {
    var status = stat()
    status.st_ino = ino_t(attributes.id)
    status.st_mode = (attributes.isFolder ? S_IFDIR | 0o555 : S_IFREG | 0o444) & ~umask
    status.st_nlink = 1
    status.st_uid = userID
    status.st_gid = groupID
    status.st_size = off_t(clamping: attributes.byteCount)
    status.st_blksize = 4096
    status.st_blocks = blkcnt_t(clamping: attributes.allocatedByteCount.dividedRoundingUp(by: 512))
    let time = timespec(tv_sec: Int(attributes.time.seconds), tv_nsec: Int(attributes.time.nanoseconds))
    status.st_atim = time
    status.st_mtim = time
    status.st_ctim = time
    return status
  }

  /// An answer to a lookup. Sizes that are guesses are not kept, so that `stat` asks for the true ones.
  func entry(for attributes: Attributes) -> fuse_entry_param {
    var entry = fuse_entry_param()
    entry.ino = attributes.id
    entry.attr = status(of: attributes)
    entry.attr_timeout = attributes.isExact ? Self.cacheSeconds : 0
    entry.entry_timeout = Self.cacheSeconds
    return entry
  }
}
