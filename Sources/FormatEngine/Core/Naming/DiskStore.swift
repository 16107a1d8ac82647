import Synchronization

/// The disk of an image as a file for another format: what `file` with a format's driver means.
final class DiskStore: ByteStore {
  let disk: ImageChain
  private let isClosed = Atomic(false)

  init(_ disk: ImageChain) { self.disk = disk }

  // What was not flushed may be lost, here as with any file; only the mark that somebody writes is taken off.
  deinit { try? close() }

  /// Closes the image that the disk is of (`ImageChain.close`), once.
  func close(beforeUnlocking note: () -> Void = {}) throws(EngineError) {
    guard !isClosed.exchange(true, ordering: .relaxed) else { return note() }
    try disk.close(beforeUnlocking: note)
  }

  var isWritable: Bool { disk.isWritable }
  var spliceDescriptor: CInt? { nil }

  func byteCount() throws(EngineError) -> UInt64 { disk.virtualSize }
  func allocatedByteCount() throws(EngineError) -> UInt64 { try disk.members[0].file.allocatedByteCount() }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    let inside = offset < disk.virtualSize ? min(disk.virtualSize - offset, UInt64(buffer.count)) : 0
    // SAFETY: `inside` is at most the buffer's count.
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[Int(inside)...])
      .initializeMemory(as: UInt8.self, repeating: 0)
    unsafe try disk.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(inside)]), at: offset)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try checkRoom(offset, UInt64(bytes.count))
    unsafe try disk.write(bytes, at: offset)
  }

  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try checkRoom(offset, count)
    try disk.writeZeros(at: offset, count: count, keepingRoom: !freeing)
  }

  func forget(at offset: UInt64, count: UInt64) {
    // Room that is not let go of is no harm.
    try? disk.discard(at: offset, count: count)
  }

  /// A disk has a size of its own: it does not grow with what is written.
  private func checkRoom(_ offset: UInt64, _ count: UInt64) throws(EngineError) {
    guard offset <= disk.virtualSize, count <= disk.virtualSize - offset else {
      throw EngineError(.noSpace, "No space left on device", offset: offset)
    }
  }

  func resize(to byteCount: UInt64) throws(EngineError) {
    guard byteCount != disk.virtualSize else { return }
    guard byteCount < disk.virtualSize else { return try checkRoom(byteCount, 0) }
    throw .unsupported("The size of a disk inside an image does not change with the file in it")
  }

  func flush() throws(EngineError) { try disk.flush() }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    guard offset < disk.virtualSize else { return StoredRun(isData: false, length: limit) }
    let found = try disk.extent(at: offset, limit: min(limit, disk.virtualSize - offset))
    return StoredRun(isData: !found.readsAsZeros, length: found.extent.length)
  }
}
