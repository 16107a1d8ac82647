import Synchronization

/// A pipe that an image is written into, from front to back. What is passed over is zeros.
final class PipeStore: ByteStore {
  private let pipe: HostPipe
  /// Bytes that are written. Writes come one after the other, in ascending order.
  private let position = Atomic<UInt64>(0)

  /// One large piece at a time: half of it is less than what a pipe can hold.
  private static let zeros = AlignedBuffer(zeroCount: Int(MiB))

  init(_ path: String) throws(EngineError) { pipe = try HostPipe(path, for: .writing) }

  var isWritable: Bool { true }
  var isSequential: Bool { true }
  var spliceDescriptor: CInt? { nil }

  func byteCount() throws(EngineError) -> UInt64 { position.load(ordering: .relaxed) }
  func allocatedByteCount() throws(EngineError) -> UInt64 { 0 }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try advance(to: offset)
    unsafe try pipe.write(bytes)
    position.store(offset + UInt64(bytes.count), ordering: .relaxed)
  }

  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try advance(to: offset.adding(count, orCorrupt: "The end of what is written"))
  }

  /// Writes zeros up to an offset.
  func advance(to offset: UInt64) throws(EngineError) {
    var done = position.load(ordering: .relaxed)
    guard offset >= done else { throw failure("What was written to a pipe is not written again") }
    while done < offset {
      let piece = Int(min(offset - done, UInt64(Self.zeros.byteCount)))
      unsafe try pipe.write(UnsafeRawBufferPointer(Self.zeros.prefix(piece)))
      done += UInt64(piece)
      position.store(done, ordering: .relaxed)
    }
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    throw failure("What was written to a pipe cannot be read")
  }

  func resize(to byteCount: UInt64) throws(EngineError) { throw failure("A pipe has no size") }
  func forget(at offset: UInt64, count: UInt64) {}
  func flush() throws(EngineError) {}

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    StoredRun(isData: true, length: limit)
  }

  private func failure(_ words: String) -> EngineError {
    EngineError(.unsupported, "\(words): '\(pipe.path)'", path: pipe.path)
  }
}

extension AlignedBuffer {
  /// Zeros.
  convenience init(zeroCount: Int) {
    self.init(byteCount: zeroCount)
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
  }
}
