internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// What every callback needs; libfuse hands it back as the session's user data.
final class FuseContext: Sendable {
  /// The kernel cuts larger reads into requests of this size, which several threads answer at once: a
  /// read of 1 MiB past the page cache takes a fifth of the time that it takes in one piece. A request
  /// and its header also fit into the largest pipe (1 MiB) that users other than root may have.
  static let maximumRequestByteCount = 256 * Int(KiB)
  /// Bytes that the kernel reads ahead, where we may say so: four requests.
  static let readAheadByteCount = MiB
  /// What does not change while the tree is mounted the kernel may keep for a day.
  static let cacheSeconds = 86_400.0
  /// How long it may keep the size and room of a disk that is being written.
  static let briefSeconds = 1.0
  /// Requests that the kernel has under way beside those that somebody waits for: reading ahead, writes out of the page cache
  /// and O_DIRECT ones. Its own limit is 12; whoever has more of them is put to sleep and woken up for each.
  static let maximumBackgroundCount: UInt32 = 256

  let fileSystem: FileSystem
  let userID: uid_t
  let groupID: gid_t
  let umask: mode_t
  let isWritable: Bool
  let buffers = BufferPool(bufferByteCount: maximumRequestByteCount)
  /// What the root's extended attribute says: the process that serves the tree.
  let process: ServingProcess
  let mountPoint: String
  /// All that do not answer requests, so that the mount's end can wait for them.
  let ownThreads = OwnThreads()
  let mount: OwnMount
  let sizeCorrection: SizeCorrection
  /// Whether the kernel's pages are known to be under way until we have answered for them: since Linux 6.16, whose protocol
  /// is 7.44. Before, it wrote copies, and counted the pages themselves as written.
  private let hasHonestPages = Atomic<Bool>(false)
  /// Whether the kernel keeps writes back, and times and sizes for itself.
  private let hasWriteback = Atomic<Bool>(false)
  private let hasSetReadAhead = Atomic<Bool>(false)
  /// Called once, when the kernel begins to talk to us: the mount is ready.
  private let whenReady: @Sendable () -> Void

  init(
    _ fileSystem: FileSystem, _ options: MountOptions, mountPoint: String, process: ServingProcess,
    whenReady: @escaping @Sendable () -> Void
  ) {
    self.fileSystem = fileSystem
    self.process = process
    self.mountPoint = mountPoint
    mount = OwnMount(fileSystem, at: mountPoint)
    sizeCorrection = SizeCorrection(fileSystem, mount, ownThreads)
    self.whenReady = whenReady
    userID = options.userID ?? getuid()
    groupID = options.groupID ?? getgid()
    umask = options.umask
    isWritable = options.takesWrites
  }

  /// Agrees with the kernel on what both can do.
  func start(_ connection: inout fuse_conn_info) {
    let wanted =
      FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_SPLICE_WRITE
      | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_EXPLICIT_INVAL_DATA
    connection.want |= UInt32(wanted) & connection.capable
    // Requests come by read(2): a pipe in between only pays for large writes, which are copied once as it is.
    connection.want &= ~UInt32(FUSE_CAP_SPLICE_READ | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC)
    connection.max_background = Self.maximumBackgroundCount
    connection.congestion_threshold = Self.maximumBackgroundCount * 3 / 4
    if isWritable {
      connection.want |= UInt32(FUSE_CAP_WRITEBACK_CACHE) & connection.capable
      hasWriteback.store(connection.want & UInt32(FUSE_CAP_WRITEBACK_CACHE) != 0, ordering: .relaxed)
      hasHonestPages.store(
        connection.proto_major == 7 && connection.proto_minor >= 44, ordering: .relaxed)
    }
    // It also bounds reads.
    connection.max_write = UInt32(Self.maximumRequestByteCount)
    whenReady()
  }

  /// Lets the kernel read further ahead than the 128 KiB that FUSE may ask for itself, before the first
  /// file is read. It works for root only, and nothing depends on it.
  func setReadAhead() {
    guard !hasSetReadAhead.exchange(true, ordering: .relaxed), let device = mount.device else { return }
    let setting = unsafe open("/sys/class/bdi/\(device)/read_ahead_kb", O_WRONLY | O_CLOEXEC)
    guard setting >= 0 else { return }
    Terminal.write("\(Self.readAheadByteCount / KiB)\n", to: setting)
    close(setting)
  }

  /// Whether a change of attributes is the kernel's own, which wants the size that it believes in when a write past it has
  /// failed (fuse_direct_IO): what others want of a size comes with a time, since the kernel has the times.
  func isKernelsOwn(_ which: CInt) -> Bool {
    hasWriteback.load(ordering: .relaxed) && which & FUSE_SET_ATTR_SIZE != 0
      && which & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW) == 0
  }

  /// Calls `body` on this thread or another: with true when the kernel keeps nothing that was written to the disk of an
  /// open file, with false where that is not known. It is for what holds the kernel's lock of one of the disk's files.
  func afterSending(_ handle: UInt64, _ body: @escaping @Sendable (Bool) -> Void) {
    let files = isWritable ? fileSystem.openedForWriting(likeThatOf: handle) : []
    if files.isEmpty { return body(true) }
    let isStarted =
      hasHonestPages.load(ordering: .relaxed)
      && ownThreads.run { body(self.mount.sendOut(files)) }
    if !isStarted { body(false) }
  }

  func status(of attributes: Attributes) -> stat {
    var status = stat()
    status.st_ino = ino_t(attributes.id)
    status.st_mode = mode(of: attributes)
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

  private func mode(of attributes: Attributes) -> mode_t {
    switch attributes.kind {
    case .folder: (S_IFDIR | (attributes.isWritable ? 0o755 : 0o555)) & ~umask
    case .file: (S_IFREG | (attributes.isWritable ? 0o644 : 0o444)) & ~umask
    case .link: S_IFLNK | 0o777
    }
  }

  /// How long the kernel may keep them. Sizes that are guesses are not kept, so that `stat` asks for the true ones.
  func attributeSeconds(_ attributes: Attributes) -> Double {
    guard attributes.isExact else { return 0 }
    return attributes.isLasting ? Self.cacheSeconds : Self.briefSeconds
  }

  /// An answer to a lookup. What has no size yet is not made known: the kernel looks it up by itself.
  func entry(for attributes: Attributes) -> fuse_entry_param {
    var entry = fuse_entry_param()
    entry.ino = attributes.hasSize ? attributes.id : 0
    entry.attr = status(of: attributes)
    entry.attr_timeout = attributeSeconds(attributes)
    entry.entry_timeout = attributes.hasLastingName ? Self.cacheSeconds : 0
    return entry
  }
}
