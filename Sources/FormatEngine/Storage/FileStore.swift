internal import CLinux
import Glibc
import Synchronization

/// A regular file or a device, by positional system calls: any number of threads, no cursor.
public final class FileStore: ByteStore {
  public let path: String
  public let isWritable: Bool
  public let identity: HostFiles.Identity
  public let kind: HostFiles.Kind
  let descriptor: HostDescriptor
  let cache: CacheMode
  let locks: FileLock
  /// Moves the bytes where the host's cache is not to see them.
  let direct: DirectTransfer?
  /// Changes that were not on disk when they returned.
  private let changeCount = Atomic<UInt64>(0)
  /// Those of them that are on disk: a flush with nothing to do costs nothing. Held while the host flushes, so that
  /// another flush does not return before what both want is on disk.
  private let synced = Guarded(Synced())

  let knownData = Guarded(KnownData())

  /// How far the file reached by what was seen and written of it. Bytes before it that are not there were cut off by
  /// somebody else: nobody may take them for zeros.
  let knownEnd: Atomic<UInt64>

  private struct Synced {
    var count: UInt64 = 0
    /// The host tells of lost pages once only: no later flush can make them good.
    var failure: EngineError?
  }

  private init(
    _ descriptor: HostDescriptor, status: stat, byteCount: UInt64, isWritable: Bool, cache: CacheMode
  ) {
    path = descriptor.path
    knownEnd = Atomic(byteCount)
    self.descriptor = descriptor
    self.isWritable = isWritable
    self.cache = cache
    locks = FileLock(descriptor: descriptor.number)
    identity = HostFiles.Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    kind = HostFiles.kind(ofMode: status.st_mode)
    direct = cache.isDirect ? DirectTransfer(descriptor, kind, cache) : nil
    Trace.emit(.fileOpen, "path \"\(path)\" fd \(descriptor.number) writable \(isWritable)")
  }

  deinit {
    Trace.emit(.fileClose, "path \"\(path)\" fd \(descriptor.number)")
    // Nothing of it stays in the page cache. An error is for who flushes next.
    if let direct, direct.usesCache { try? flush() }
    locks.release(path: path)
    close(descriptor.number)
  }

  /// Opens an existing regular file or device.
  ///
  /// Anything else - a folder, a pipe, a socket - is refused before a byte is read from it.
  public static func open(
    _ path: String, access: FileAccess, cache: CacheMode = .writeback
  ) throws(EngineError) -> FileStore {
    try open(FilePlace(path: path), access: access, cache: cache)
  }

  /// The same for a file that an image names.
  static func open(_ place: FilePlace, access: FileAccess, cache: CacheMode) throws(EngineError) -> FileStore
  {
    let number = openDescriptor(place, access == .readOnly ? O_RDONLY : O_RDWR, cache)
    return try adopt(number, place, access == .readWrite, cache)
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

  public func unlock() { locks.release(path: path) }

  /// Makes a new file, or opens an existing one, emptied unless told otherwise. It is locked before that. A file
  /// system without O_DIRECT is no error here: who opens the finished image is told.
  public static func create(
    _ path: String, emptying: Bool = true, cache: CacheMode = .writeback
  ) throws(EngineError) -> FileStore {
    var cache = cache
    let place = FilePlace(path: path)
    var number = openDescriptor(place, O_RDWR | O_CREAT, cache)
    if number < 0 && isWithoutDirect(place, cache) {
      cache.isDirect = false
      number = openDescriptor(place, O_RDWR | O_CREAT, cache)
    }
    guard number >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    let store = try adopt(number, place, true, cache)
    try store.lock(.creation)
    if emptying && store.kind == .regular { try store.resize(to: 0) }
    return store
  }

  private static func openDescriptor(_ place: FilePlace, _ access: CInt, _ cache: CacheMode) -> CInt {
    // O_NONBLOCK: opening a pipe must not wait for its other end. It means nothing for regular files. A terminal is not
    // to become that of this process.
    var flags = access | O_CLOEXEC | O_NONBLOCK | O_NOCTTY
    if cache.isDirect { flags |= CInt(IMGFS_O_DIRECT) }
    if cache.writesThrough { flags |= O_DSYNC }
    return retrying { place.open(flags: flags) }
  }

  /// Whether that is why the file could not just now be opened: its file system has only cached files.
  private static func isWithoutDirect(_ place: FilePlace, _ cache: CacheMode) -> Bool {
    let reason = errno
    defer { errno = reason }
    guard cache.isDirect, reason == EINVAL else { return false }
    let number = openDescriptor(place, O_RDONLY, .writeback)
    if number >= 0 { close(number) }
    return number >= 0
  }

  static func adopt(
    _ number: CInt, _ place: FilePlace, _ isWritable: Bool, _ cache: CacheMode
  ) throws(EngineError) -> FileStore {
    let path = place.path
    guard number >= 0 else {
      if isWithoutDirect(place, cache) {
        throw EngineError(
          .invalidArgument, "Could not open '\(path)': filesystem does not support O_DIRECT", path: path)
      }
      throw .systemCall("Could not open '\(path)'", errno: errno, path: path)
    }
    let descriptor = HostDescriptor(number: number, path: path)
    do throws(EngineError) {
      let status = try descriptor.status()
      let kind = HostFiles.kind(ofMode: status.st_mode)
      switch kind {
      case .regular, .blockDevice: break
      case .characterDevice where place.allowsCharacterDevices: break
      case .characterDevice:
        throw EngineError(
          .forbidden, "Could not open '\(path)': no image may name a character device", path: path)
      default:
        throw EngineError(
          .invalidArgument, "'file' driver requires '\(path)' to be a regular file", path: path)
      }
      // A character device need not tell.
      let byteCount = kind == .characterDevice ? 0 : try descriptor.byteCount()
      return FileStore(
        descriptor, status: status, byteCount: byteCount, isWritable: isWritable, cache: cache)
    } catch {
      close(number)
      throw error
    }
  }

  /// Nil past the page cache, which a splice goes through.
  public var spliceDescriptor: CInt? { direct == nil ? descriptor.number : nil }

  public func byteCount() throws(EngineError) -> UInt64 { try descriptor.byteCount() }

  public func allocatedByteCount() throws(EngineError) -> UInt64 {
    UInt64(max(0, try descriptor.status().st_blocks)) * 512
  }

  /// Seconds and nanoseconds since the Epoch of the last change.
  public func modificationTime() throws(EngineError) -> (seconds: Int64, nanoseconds: Int64) {
    let time = try descriptor.status().st_mtim
    return (Int64(time.tv_sec), Int64(time.tv_nsec))
  }

  /// Past the end that the file had when it was opened, or has got since, there are zeros. What somebody else has cut
  /// off is an error.
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    Trace.emit(.storeRead, "path \"\(path)\" offset \(offset) bytes \(buffer.count)")
    // Before: what others add meanwhile is none that was cut off.
    let end = knownEnd.load(ordering: .acquiring)
    let done =
      if let direct {
        unsafe try direct.read(into: buffer, at: offset)
      } else {
        unsafe try descriptor.read(into: buffer, at: offset)
      }
    guard done < buffer.count else { return }
    try requireEnd(before: min(end, knownEnd.load(ordering: .acquiring)), at: offset, found: UInt64(done))
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// Throws where the file ended `found` bytes behind `offset`, though it reached up to `end`.
  private func requireEnd(before end: UInt64, at offset: UInt64, found: UInt64) throws(EngineError) {
    guard end > offset, end - offset > found else { return }
    throw .unreadable(
      "Could not read from '\(path)': the file is shorter than it was, somebody has cut it off", path: path,
      offset: offset + found)
  }

  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    Trace.emit(.storeWrite, "path \"\(path)\" offset \(offset) bytes \(bytes.count)")
    defer { if !cache.writesThrough { noteChange() } }
    if let direct {
      unsafe try direct.write(bytes, at: offset)
    } else {
      unsafe try descriptor.write(bytes, at: offset)
    }
    if bytes.count > 0 { knownEnd.max(offset + UInt64(bytes.count), ordering: .acquiringAndReleasing) }
  }

  /// Runs a change that the system makes by itself.
  private func changing<T>(_ range: Range<UInt64>, _ body: () throws(EngineError) -> T) throws(EngineError)
    -> T
  {
    defer {
      knownData.withLock { $0.forget() }
      noteChange()
    }
    guard let direct else { return try body() }
    return try direct.changing(range, body)
  }

  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    Trace.emit(.storeWriteZeros, "path \"\(path)\" offset \(offset) bytes \(count) freeing \(freeing)")
    guard count > 0 else { return }
    if kind == .blockDevice, count <= maximumFileOffset, offset <= maximumFileOffset - count {
      return try zeroDevice(at: offset, count: count, freeing: freeing)
    }
    try zero(at: offset, count: count, freeing: freeing)
  }

  /// A device makes zeros of whole sectors only, none of which is larger than a page.
  private func zeroDevice(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    let end = offset + count
    let whole = offset.aligned(upTo: 4096)..<max(end.aligned(downTo: 4096), offset.aligned(upTo: 4096))
    guard !whole.isEmpty else { return try writeZeroBytes(at: offset, count: count) }
    try writeZeroBytes(at: offset, count: whole.lowerBound - offset)
    try zero(at: whole.lowerBound, count: whole.upperBound - whole.lowerBound, freeing: freeing)
    try writeZeroBytes(at: whole.upperBound, count: end - whole.upperBound)
  }

  private func zero(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    guard count <= maximumFileOffset, offset <= maximumFileOffset - count else {
      throw .systemCall("Could not write to '\(path)'", errno: EFBIG, path: path)
    }
    let modes =
      freeing
      ? [FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE] : [FALLOC_FL_ZERO_RANGE]
    // Punching does not make the file longer; past the end it is the length that makes zeros. The last byte is the
    // caller's own: another size of the file could cut off what others write behind it at this moment.
    if kind == .regular, try byteCount() < offset + count { try write(bytes: [0], at: offset + count - 1) }
    let isDone = try changing(offset..<offset + count) { () throws(EngineError) in
      for mode in modes {
        if retrying({ fallocate(descriptor.number, CInt(mode), off_t(offset), off_t(count)) }) == 0 {
          return true
        }
        guard errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL || errno == ENODEV else {
          throw descriptor.failure("Could not write zeros to", at: offset)
        }
      }
      return false
    }
    if !isDone { try writeZeroBytes(at: offset, count: count) }
  }

  public func forget(at offset: UInt64, count: UInt64) {
    Trace.emit(.storeDiscard, "path \"\(path)\" offset \(offset) bytes \(count)")
    guard count > 0, count <= maximumFileOffset, offset <= maximumFileOffset - count else { return }
    let mode = CInt(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    // That the room is not let go of is no harm.
    _ = try? changing(offset..<offset + count) { () throws(EngineError) in
      retrying { fallocate(descriptor.number, mode, off_t(offset), off_t(count)) }
    }
  }

  /// Sets room aside without changing the size beyond `offset + count` or what is there.
  public func reserve(at offset: UInt64, count: UInt64) throws(EngineError) {
    guard count > 0 else { return }
    guard count <= maximumFileOffset, offset <= maximumFileOffset - count else {
      throw .systemCall("Could not preallocate new data", errno: EFBIG, path: path)
    }
    // Where the file system cannot do it, glibc writes single bytes.
    let number = try direct?.withCache().number ?? descriptor.number
    let result = try changing(offset..<offset + count) { () throws(EngineError) in
      // It gives the error's number itself, and is not called again by itself.
      var result = EINTR
      while result == EINTR { result = posix_fallocate(number, off_t(offset), off_t(count)) }
      return result
    }
    if result != 0 {
      throw .systemCall("Could not preallocate new data", errno: result, path: path)
    }
    knownEnd.max(offset + count, ordering: .acquiringAndReleasing)
  }

  public func resize(to byteCount: UInt64) throws(EngineError) {
    Trace.emit(.storeResize, "path \"\(path)\" size \(byteCount)")
    guard byteCount <= maximumFileOffset else {
      throw .systemCall("Could not resize file", errno: EFBIG, path: path)
    }
    if kind.isDevice {
      guard try byteCount <= self.byteCount() else {
        throw EngineError(.invalidArgument, "Cannot grow device files", path: path)
      }
      return
    }
    // Before: a read that runs beside it takes nothing for cut off by others.
    let old = knownEnd.min(byteCount, ordering: .acquiringAndReleasing).oldValue
    try changing(byteCount..<UInt64.max) { () throws(EngineError) in
      guard retrying({ ftruncate(descriptor.number, off_t(byteCount)) }) == 0 else {
        knownEnd.max(old, ordering: .acquiringAndReleasing)
        throw .systemCall("Could not resize file", errno: errno, path: path)
      }
    }
    knownEnd.max(byteCount, ordering: .acquiringAndReleasing)
  }

  /// Something was written: it is on disk after the next flush. Noted afterwards, since a flush that runs meanwhile may
  /// not have it.
  func noteChange() { changeCount.add(1, ordering: .acquiringAndReleasing) }

  /// Whether a flush has something to do.
  var isUnsynced: Bool { synced.withLock { $0.count < changeCount.load(ordering: .acquiring) } }

  public func flush() throws(EngineError) {
    guard !cache.skipsFlushes else { return }
    let wanted = changeCount.load(ordering: .acquiring)
    try synced.withLock { (synced) throws(EngineError) in
      if let failure = synced.failure { throw failure }
      // What the system changes in a cached page, where a file grows past its end, belongs to no write.
      guard wanted > synced.count || direct?.usesCache == true else { return }
      Trace.emit(.storeFlush, "path \"\(path)\"")
      let covered = changeCount.load(ordering: .acquiring)
      guard retrying({ fdatasync(descriptor.number) }) == 0 else {
        let failure = descriptor.failure("Could not flush")
        // Past the page cache nothing was lost.
        if direct == nil || direct?.usesCache == true { synced.failure = failure }
        throw failure
      }
      synced.count = covered
    }
    direct?.dropCached()
  }

  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    guard offset <= maximumFileOffset else { return StoredRun(isData: false, length: limit) }
    let status = try descriptor.status()
    if let known = knownData.withLock({ $0.length(from: offset, status) }) {
      return StoredRun(isData: true, length: min(limit, known))
    }
    let end = knownEnd.load(ordering: .acquiring)
    let data = lseek(descriptor.number, off_t(offset), CInt(IMGFS_SEEK_DATA))
    if data < 0 {
      // ENXIO: no data from here to the end. Anything else: this file cannot tell, so all is data.
      guard errno == ENXIO else { return StoredRun(isData: true, length: limit) }
      if offset < end, case let size = try byteCount(), size < end {
        let known = min(end, knownEnd.load(ordering: .acquiring))
        try requireEnd(before: known, at: offset, found: size - min(size, offset))
      }
      return StoredRun(isData: false, length: limit)
    }
    if UInt64(data) > offset { return StoredRun(isData: false, length: min(limit, UInt64(data) - offset)) }
    let hole = lseek(descriptor.number, off_t(offset), CInt(IMGFS_SEEK_HOLE))
    guard hole > off_t(offset) else { return StoredRun(isData: true, length: limit) }
    if UInt64(hole) - offset > limit {
      knownData.withLock { $0.remember(offset..<UInt64(hole), status) }
    }
    return StoredRun(isData: true, length: min(limit, UInt64(hole) - offset))
  }
}
