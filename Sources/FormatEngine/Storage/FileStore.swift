internal import CLinux
import Glibc
import Synchronization

/// A regular file or a block device, by positional system calls: any number of threads, no cursor.
public final class FileStore: ByteStore {
  public let path: String
  public let isWritable: Bool
  public let identity: HostFiles.Identity
  public let kind: HostFiles.Kind
  private let descriptor: CInt
  private let flushing: FlushMode
  let locks: FileLock
  /// Set by every write, cleared by a flush before it starts: a flush with nothing to do costs nothing.
  private let hasUnsyncedWrites = Atomic<Bool>(false)

  private init(path: String, descriptor: CInt, status: stat, isWritable: Bool, flushing: FlushMode) {
    self.path = path
    self.descriptor = descriptor
    self.isWritable = isWritable
    self.flushing = flushing
    locks = FileLock(descriptor: descriptor)
    identity = HostFiles.Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    kind = HostFiles.kind(ofMode: status.st_mode)
  }

  deinit {
    locks.release()
    close(descriptor)
  }

  /// Opens an existing regular file or block device.
  ///
  /// Anything else - a folder, a pipe, a terminal - is refused before a byte is read from it.
  public static func open(
    _ path: String, access: FileAccess, flushing: FlushMode = .durable
  ) throws(EngineError) -> FileStore {
    // O_NONBLOCK: opening a pipe must not wait for its other end. It means nothing for regular files.
    let flags = (access == .readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK
    return try adopt(retrying { unsafe Glibc.open(path, flags) }, path, access == .readWrite, flushing)
  }

  /// Keeps others from what `request` does not share, and looks whether they allow what it takes (`FileLock`), until
  /// `unlock` or the end of the store. More can be asked for later.
  ///
  /// `mode`: nil is that of before, at first `auto`. `older`: an open of the same file that is no obstacle, and that holds this one's locks, too.
  public func lock(_ request: LockRequest, _ mode: LockMode? = nil, continuing older: FileStore? = nil)
    throws(EngineError)
  {
    try locks.take(request, mode, path: path, continuing: older)
  }

  public func unlock() { locks.release() }

  /// Makes a new file, or opens an existing one, emptied unless told otherwise. It is locked before that.
  public static func create(
    _ path: String, emptying: Bool = true, flushing: FlushMode = .durable
  ) throws(EngineError) -> FileStore {
    let flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK
    let descriptor = retrying { unsafe Glibc.open(path, flags, 0o644) }
    guard descriptor >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    let store = try adopt(descriptor, path, true, flushing)
    try store.lock(.creation)
    if emptying && store.kind == .regular { try store.resize(to: 0) }
    return store
  }

  private static func adopt(
    _ descriptor: CInt, _ path: String, _ isWritable: Bool, _ flushing: FlushMode
  ) throws(EngineError) -> FileStore {
    guard descriptor >= 0 else { throw .systemCall("Could not open '\(path)'", errno: errno, path: path) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else {
      let number = errno
      close(descriptor)
      throw .systemCall("Could not stat '\(path)'", errno: number, path: path)
    }
    switch HostFiles.kind(ofMode: status.st_mode) {
    case .regular, .blockDevice: break
    default:
      close(descriptor)
      throw EngineError(
        .invalidArgument,
        "'file' driver requires '\(path)' to be a regular file", path: path)
    }
    return FileStore(
      path: path, descriptor: descriptor, status: status, isWritable: isWritable, flushing: flushing)
  }

  public var spliceDescriptor: CInt? { descriptor }

  public func byteCount() throws(EngineError) -> UInt64 {
    if kind == .blockDevice {
      let end = lseek(descriptor, 0, SEEK_END)
      guard end >= 0 else { throw failure("Could not find the size of") }
      return UInt64(end)
    }
    return UInt64(max(0, try status().st_size))
  }

  public func allocatedByteCount() throws(EngineError) -> UInt64 {
    UInt64(max(0, try status().st_blocks)) * 512
  }

  /// Seconds and nanoseconds since the Epoch of the last change.
  public func modificationTime() throws(EngineError) -> (seconds: Int64, nanoseconds: Int64) {
    let time = try status().st_mtim
    return (Int64(time.tv_sec), Int64(time.tv_nsec))
  }

  private func status() throws(EngineError) -> stat {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw failure("Could not stat") }
    return status
  }

  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    guard let start = buffer.baseAddress else { return }
    guard offset <= maximumFileOffset - UInt64(buffer.count) else {
      unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
      return
    }
    var done = 0
    while done < buffer.count {
      // SAFETY: `done` stays below the buffer's count.
      let count = retrying {
        unsafe pread(descriptor, start + done, buffer.count - done, off_t(offset) + off_t(done))
      }
      if count < 0 { throw failure("Could not read from", at: offset + UInt64(done)) }
      if count == 0 {
        unsafe (start + done).initializeMemory(as: UInt8.self, repeating: 0, count: buffer.count - done)
        return
      }
      done += count
    }
  }

  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    guard let start = bytes.baseAddress else { return }
    guard offset <= maximumFileOffset - UInt64(bytes.count) else {
      throw .systemCall("Could not write to '\(path)'", errno: EFBIG, path: path)
    }
    hasUnsyncedWrites.store(true, ordering: .releasing)
    var done = 0
    while done < bytes.count {
      // SAFETY: `done` stays below the buffer's count.
      let count = retrying {
        unsafe pwrite(descriptor, start + done, bytes.count - done, off_t(offset) + off_t(done))
      }
      if count < 0 { throw failure("Could not write to", at: offset + UInt64(done)) }
      done += count
    }
  }

  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    guard count > 0 else { return }
    guard count <= maximumFileOffset, offset <= maximumFileOffset - count else {
      throw .systemCall("Could not write to '\(path)'", errno: EFBIG, path: path)
    }
    hasUnsyncedWrites.store(true, ordering: .releasing)
    let modes =
      freeing
      ? [FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE] : [FALLOC_FL_ZERO_RANGE]
    // Punching does not make the file longer; past the end it is the length that makes zeros. The last byte is the
    // caller's own: another size of the file could cut off what others write behind it at this moment.
    if kind == .regular, try byteCount() < offset + count { try write(bytes: [0], at: offset + count - 1) }
    for mode in modes {
      if retrying({ fallocate(descriptor, CInt(mode), off_t(offset), off_t(count)) }) == 0 { return }
      guard errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL || errno == ENODEV else {
        throw failure("Could not write zeros to", at: offset)
      }
    }
    try writeZeroBytes(at: offset, count: count)
  }

  public func forget(at offset: UInt64, count: UInt64) {
    guard count > 0, count <= maximumFileOffset, offset <= maximumFileOffset - count else { return }
    hasUnsyncedWrites.store(true, ordering: .releasing)
    let mode = CInt(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    _ = retrying { fallocate(descriptor, mode, off_t(offset), off_t(count)) }
  }

  /// For file systems and devices that can do nothing better.
  private func writeZeroBytes(at offset: UInt64, count: UInt64) throws(EngineError) {
    let zeros = [UInt8](repeating: 0, count: Int(min(count, MiB)))
    var done: UInt64 = 0
    while done < count {
      let piece = min(count - done, UInt64(zeros.count))
      try write(
        bytes: piece == UInt64(zeros.count) ? zeros : Array(zeros.prefix(Int(piece))), at: offset + done)
      done += piece
    }
  }

  /// Sets room aside without changing the size beyond `offset + count` or what is there.
  public func reserve(at offset: UInt64, count: UInt64) throws(EngineError) {
    guard count > 0 else { return }
    guard count <= maximumFileOffset, offset <= maximumFileOffset - count else {
      throw .systemCall("Could not preallocate data for '\(path)'", errno: EFBIG, path: path)
    }
    hasUnsyncedWrites.store(true, ordering: .releasing)
    let result = posix_fallocate(descriptor, off_t(offset), off_t(count))
    if result != 0 {
      throw .systemCall("Could not preallocate data for '\(path)'", errno: result, path: path)
    }
  }

  public func resize(to byteCount: UInt64) throws(EngineError) {
    guard byteCount <= maximumFileOffset else {
      throw .systemCall("Could not resize file", errno: EFBIG, path: path)
    }
    if kind == .blockDevice {
      guard try byteCount <= self.byteCount() else {
        throw EngineError(.invalidArgument, "Cannot grow device files", path: path)
      }
      return
    }
    hasUnsyncedWrites.store(true, ordering: .releasing)
    guard retrying({ ftruncate(descriptor, off_t(byteCount)) }) == 0 else {
      throw .systemCall("Could not resize file", errno: errno, path: path)
    }
  }

  public func flush() throws(EngineError) {
    guard flushing == .durable, hasUnsyncedWrites.exchange(false, ordering: .acquiringAndReleasing) else {
      return
    }
    guard retrying({ fdatasync(descriptor) }) == 0 else {
      // Not clean: the next flush must try again, and fail again.
      hasUnsyncedWrites.store(true, ordering: .releasing)
      throw failure("Could not flush")
    }
  }

  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    guard offset <= maximumFileOffset else { return StoredRun(isData: false, length: limit) }
    let data = lseek(descriptor, off_t(offset), CInt(IMGFS_SEEK_DATA))
    if data < 0 {
      // ENXIO: no data from here to the end. Anything else: this file cannot tell, so all is data.
      return StoredRun(isData: errno != ENXIO, length: limit)
    }
    if UInt64(data) > offset { return StoredRun(isData: false, length: min(limit, UInt64(data) - offset)) }
    let hole = lseek(descriptor, off_t(offset), CInt(IMGFS_SEEK_HOLE))
    guard hole > off_t(offset) else { return StoredRun(isData: true, length: limit) }
    return StoredRun(isData: true, length: min(limit, UInt64(hole) - offset))
  }

  private func failure(_ tried: String, at offset: UInt64? = nil) -> EngineError {
    var error = EngineError.systemCall("\(tried) '\(path)'", errno: errno, path: path)
    error.offset = offset
    return error
  }
}

/// The one EINTR loop.
func retrying<T: SignedInteger>(_ call: () -> T) -> T {
  while true {
    let result = call()
    if result != -1 || errno != EINTR { return result }
  }
}
