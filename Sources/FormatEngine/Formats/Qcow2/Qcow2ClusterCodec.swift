/// Unpacks compressed clusters with the image's compression type. Any number of threads.
final class Qcow2ClusterCodec: Sendable {
  enum Method: UInt8, Sendable {
    case deflate = 0
    case zstandard = 1

    /// As `compression_type` has it.
    var name: String { self == .deflate ? "zlib" : "zstd" }
  }

  let method: Method
  private let deflate = ContextPool { () throws(EngineError) in try DeflateUnpacker(.raw) }
  private let zstandard = ContextPool { () throws(EngineError) in try ZstandardUnpacker() }
  private let buffers: BufferPool

  init(_ method: Method, clusterSize: UInt64) {
    self.method = method
    // The entry's sector count reaches up to twice the cluster.
    buffers = BufferPool(bufferByteCount: Int(2 * clusterSize + 512))
  }

  /// Reads `byteCount` packed bytes at `hostOffset` and fills `target` from them.
  func unpack(
    from file: any ByteStore, at hostOffset: UInt64, byteCount: UInt64,
    into target: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    let buffer = buffers.take()
    defer { buffers.give(buffer) }
    let packed = unsafe buffer.prefix(Int(min(byteCount, UInt64(buffer.byteCount))))
    unsafe try file.read(into: packed, at: hostOffset)
    let source = UnsafeRawBufferPointer(packed)
    switch method {
    case .deflate:
      try deflate.with { (unpacker) throws(EngineError) in unsafe try unpacker.unpack(source, into: target) }
    case .zstandard:
      try zstandard.with { (unpacker) throws(EngineError) in unsafe try unpacker.unpack(source, into: target)
      }
    }
  }
}
