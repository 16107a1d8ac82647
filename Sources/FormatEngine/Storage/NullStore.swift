/// A file of a given size that reads as zeros and forgets what is written to it (null-co).
final class NullStore: ByteStore {
  private let size: UInt64

  init(byteCount: UInt64) { size = byteCount }

  var isWritable: Bool { true }
  var spliceDescriptor: CInt? { nil }

  func byteCount() throws(EngineError) -> UInt64 { size }
  func allocatedByteCount() throws(EngineError) -> UInt64 { 0 }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {}
  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {}
  func forget(at offset: UInt64, count: UInt64) {}
  func resize(to byteCount: UInt64) throws(EngineError) {}
  func flush() throws(EngineError) {}

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    StoredRun(isData: false, length: limit)
  }
}
