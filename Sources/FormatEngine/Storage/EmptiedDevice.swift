/// A device as a file that was just emptied, for a format that makes a new image on it: it is as long as what was
/// written, and what was left out reads as zeros, whatever the device held there.
final class EmptiedDevice: ByteStore {
  private let device: FileStore
  /// What lies past it is old. Held while it grows; whoever makes an image does so alone.
  private let end = Guarded<UInt64>(0)

  init(_ device: FileStore) { self.device = device }

  var isWritable: Bool { device.isWritable }
  var spliceDescriptor: CInt? { nil }

  func byteCount() throws(EngineError) -> UInt64 { end.withLock { $0 } }
  func allocatedByteCount() throws(EngineError) -> UInt64 { try device.allocatedByteCount() }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    let end = try byteCount()
    let inside = offset < end ? Int(min(end - offset, UInt64(buffer.count))) : 0
    // SAFETY: `inside` is at most the buffer's count.
    unsafe try device.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<inside]), at: offset)
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[inside...])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try grow(to: offset)
    unsafe try device.write(bytes, at: offset)
    // Written, so it did not overflow.
    end.withLock { $0 = max($0, offset &+ UInt64(bytes.count)) }
  }

  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try grow(to: offset)
    try device.writeZeros(at: offset, count: count, freeing: freeing)
    end.withLock { $0 = max($0, offset &+ count) }
  }

  func forget(at offset: UInt64, count: UInt64) {}

  func resize(to byteCount: UInt64) throws(EngineError) {
    try device.resize(to: byteCount)
    try grow(to: byteCount)
    end.withLock { $0 = byteCount }
  }

  /// Zeros up to there.
  private func grow(to byteCount: UInt64) throws(EngineError) {
    try end.withLock { (end) throws(EngineError) in
      guard byteCount > end else { return }
      try device.writeZeros(at: end, count: byteCount - end, freeing: true)
      end = byteCount
    }
  }

  func flush() throws(EngineError) { try device.flush() }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    let end = try byteCount()
    guard offset < end else { return StoredRun(isData: false, length: limit) }
    return StoredRun(isData: true, length: min(limit, end - offset))
  }
}
