internal import CLinux
import Glibc

/// Reads and writes past the host's page cache (O_DIRECT): it moves whole units of the device, from and to memory
/// that is aligned. What is not goes through a buffer that is; a part of a unit is read, changed and written back.
///
/// The last page of a file whose length is no multiple of a page is the exception. It is written through the page
/// cache, since a whole unit would make the file longer for a moment, and after a power cut for good.
final class DirectTransfer: Sendable {
  private let descriptor: HostDescriptor
  private let cache: CacheMode
  /// What addresses of memory must be multiples of.
  private let memoryUnit: Int
  /// What offsets and lengths must be multiples of, in bytes: a power of two.
  private let unit: UInt64
  /// What is held while a part of it changes: a page of the host's cache, so that none is changed in the cache and past
  /// it at one time. A device has no end inside of a unit, so a unit is enough.
  private let page: UInt64
  /// Pages of which parts are being changed. Nothing else is locked while one is held but `cached`.
  private let pages = RangeLock()
  private let bounces: BufferPool
  /// The same file with the cache, opened when it is first needed.
  private let cached = Guarded<HostDescriptor?>(nil)
  /// Where the page cache may hold something of this file because of us.
  private let touched = Guarded<Range<UInt64>?>(nil)

  init(_ descriptor: HostDescriptor, _ kind: HostFiles.Kind, _ cache: CacheMode) {
    self.descriptor = descriptor
    self.cache = cache
    var (memory, offset): (CUnsignedInt, CUnsignedInt) = (0, 0)
    if unsafe imgfs_direct_alignment(descriptor.number, &memory, &offset) != 0 {
      // Kernels before 6.1, and file systems that do not tell. No device wants more than a page.
      let sector = kind == .blockDevice ? imgfs_sector_size(descriptor.number) : 0
      (memory, offset) = (4096, sector > 0 ? CUnsignedInt(sector) : 4096)
    }
    memoryUnit = Int(memory)
    unit = UInt64(offset)
    page = kind == .blockDevice ? unit : max(unit, 4096)
    bounces = BufferPool(bufferByteCount: Int(max(page, 256 * KiB)), maximumKept: 4)
  }

  deinit { if let cached = cached.withLock({ $0 }) { close(cached.number) } }

  private func isAligned(_ address: UnsafeRawPointer?) -> Bool {
    Int(bitPattern: address) % memoryUnit == 0
  }

  /// Whether all of it is moved from or to this memory as it is.
  func takesWhole(_ memory: UnsafeRawBufferPointer, at offset: UInt64, isWrite: Bool) -> Bool {
    let part = isWrite ? page : unit
    return offset.isAligned(to: part) && UInt64(memory.count).isAligned(to: part)
      && (unsafe isAligned(memory.baseAddress))
  }

  // MARK: Reading

  /// Fills `buffer` as far as the file goes; returns how many bytes that were.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) -> Int {
    guard offset <= maximumFileOffset - UInt64(buffer.count) - unit else { return 0 }
    if offset.isAligned(to: unit), unsafe isAligned(buffer.baseAddress) {
      let whole = Int(UInt64(buffer.count).aligned(downTo: unit))
      let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<whole])
      let done = unsafe try descriptor.read(into: piece, at: offset, unit: Int(unit))
      guard done == whole, whole < buffer.count else { return done }
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[whole...])
      return unsafe try done + readThroughBuffer(into: rest, at: offset + UInt64(whole))
    }
    return unsafe try readThroughBuffer(into: buffer, at: offset)
  }

  private func readThroughBuffer(into target: UnsafeMutableRawBufferPointer, at offset: UInt64)
    throws(EngineError) -> Int
  {
    let buffer = bounces.take()
    defer { bounces.give(buffer) }
    var done = 0
    while done < target.count {
      let position = offset + UInt64(done)
      let start = position.aligned(downTo: unit)
      let skipped = Int(position - start)
      let count = min(target.count - done, buffer.byteCount - skipped)
      let units = Int(UInt64(skipped + count).aligned(upTo: unit))
      let found = unsafe try descriptor.read(into: buffer.prefix(units), at: start, unit: Int(unit))
      let usable = min(max(found - skipped, 0), count)
      // SAFETY: `usable` is at most what is left of the target and what the buffer holds behind `skipped`.
      unsafe UnsafeMutableRawBufferPointer(rebasing: target[done...])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer.bytes[skipped..<skipped + usable]))
      done += usable
      if usable < count { break }
    }
    return done
  }

  // MARK: Writing

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    guard offset <= maximumFileOffset - page, UInt64(bytes.count) <= maximumFileOffset - page - offset else {
      throw .systemCall("Could not write to '\(descriptor.path)'", errno: EFBIG, path: descriptor.path)
    }
    var done = 0
    while done < bytes.count {
      let position = offset + UInt64(done)
      let rest = UInt64(bytes.count - done)
      let skipped = position & (page - 1)
      let isWhole = skipped == 0 && rest >= page
      let count = isWhole ? Int(rest.aligned(downTo: page)) : Int(min(rest, page - skipped))
      let piece = unsafe UnsafeRawBufferPointer(rebasing: bytes[done..<done + count])
      if isWhole {
        unsafe try writePages(piece, at: position)
      } else {
        unsafe try writePart(piece, at: position)
      }
      done += count
    }
  }

  private func writePages(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    if unsafe isAligned(bytes.baseAddress) { return unsafe try descriptor.write(bytes, at: offset) }
    let buffer = bounces.take()
    defer { bounces.give(buffer) }
    var done = 0
    while done < bytes.count {
      let room = unsafe buffer.prefix(min(bytes.count - done, buffer.byteCount))
      unsafe room.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[done..<done + room.count]))
      unsafe try descriptor.write(UnsafeRawBufferPointer(room), at: offset + UInt64(done))
      done += room.count
    }
  }

  /// Writes a part of one page.
  private func writePart(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    let start = offset.aligned(downTo: page)
    try pages.withRange(start..<start + page, exclusive: true) { () throws(EngineError) in
      guard start + page <= (try descriptor.byteCount()) else {
        note(start..<start + page)
        return unsafe try withCache().write(bytes, at: offset)
      }
      let first = offset.aligned(downTo: unit)
      let end = (offset + UInt64(bytes.count)).aligned(upTo: unit)
      let buffer = bounces.take()
      defer { bounces.give(buffer) }
      let room = unsafe buffer.prefix(Int(end - first))
      if room.count > bytes.count { _ = unsafe try descriptor.read(into: room, at: first, unit: Int(unit)) }
      // SAFETY: the units hold all of `bytes`.
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[Int(offset - first)...]).copyMemory(from: bytes)
      unsafe try descriptor.write(UnsafeRawBufferPointer(room), at: first)
    }
  }

  /// The same file by a descriptor that takes any offset and length.
  func withCache() throws(EngineError) -> HostDescriptor {
    try cached.withLock { (cached) throws(EngineError) in
      if let cached { return cached }
      let flags = O_RDWR | O_CLOEXEC | (cache.writesThrough ? O_DSYNC : 0)
      let number = retrying { unsafe Glibc.open("/proc/self/fd/\(descriptor.number)", flags) }
      guard number >= 0 else { throw descriptor.failure("Could not open") }
      let opened = HostDescriptor(number: number, path: descriptor.path)
      cached = opened
      return opened
    }
  }

  // MARK: Changes that the system makes by itself

  /// Runs a change of a range, or of all from an offset on, which the system makes in the page cache where it begins
  /// or ends inside of a page.
  func changing<T>(_ range: Range<UInt64>, _ body: () throws(EngineError) -> T) throws(EngineError) -> T {
    guard !range.lowerBound.isAligned(to: page) || !range.upperBound.isAligned(to: page) else {
      return try body()
    }
    let start = range.lowerBound.aligned(downTo: page)
    let end = range.upperBound > maximumFileOffset ? UInt64.max : range.upperBound.aligned(upTo: page)
    note(start..<end)
    return try pages.withRange(start..<end, exclusive: true, body)
  }

  private func note(_ range: Range<UInt64>) {
    touched.withLock { touched in
      guard let old = touched else { return touched = range }
      touched = min(old.lowerBound, range.lowerBound)..<max(old.upperBound, range.upperBound)
    }
  }

  /// Whether the page cache may hold something because of us.
  var usesCache: Bool { touched.withLock { $0 != nil } }

  /// Drops that. It has to be on disk.
  func dropCached() {
    guard let range = touched.withLock({ (touched) in touched.take() }) else { return }
    let count = range.upperBound > maximumFileOffset ? 0 : range.upperBound - range.lowerBound
    _ = posix_fadvise(descriptor.number, off_t(range.lowerBound), off_t(count), POSIX_FADV_DONTNEED)
  }
}
