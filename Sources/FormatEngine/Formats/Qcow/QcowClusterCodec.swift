/// Unpacks compressed clusters: raw deflate streams. Any number of threads.
final class QcowClusterCodec: Sendable {
  private let deflate = ContextPool { () throws(EngineError) in try DeflateUnpacker(.raw) }
  private let buffers: BufferPool
  private let clusterSize: Int

  init(clusterSize: UInt64) {
    self.clusterSize = Int(clusterSize)
    // Packed bytes and a whole cluster; packed bytes are fewer than a cluster has.
    buffers = BufferPool(bufferByteCount: 2 * Int(clusterSize))
  }

  /// Fills `target` with the bytes of a cluster from its byte `first` on; `byteCount` packed bytes, fewer than a
  /// cluster has, are at `hostOffset`.
  func unpack(
    from file: any ByteStore, at hostOffset: UInt64, byteCount: Int, first: Int,
    into target: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    guard byteCount < clusterSize, first >= 0, target.count <= clusterSize - first else {
      throw .corrupt("Compressed extent is longer than its cluster", at: hostOffset)
    }
    let buffer = buffers.take()
    defer { buffers.give(buffer) }
    let packed = unsafe buffer.prefix(byteCount)
    unsafe try file.read(into: packed, at: hostOffset)
    let source = UnsafeRawBufferPointer(packed)
    if target.count == clusterSize {
      return try deflate.with { (unpacker) throws(EngineError) in
        unsafe try unpacker.unpack(source, into: target)
      }
    }
    // SAFETY: the buffer is twice a cluster long.
    let cluster = unsafe UnsafeMutableRawBufferPointer(
      rebasing: buffer.prefix(2 * clusterSize)[clusterSize..<2 * clusterSize])
    try deflate.with { (unpacker) throws(EngineError) in unsafe try unpacker.unpack(source, into: cluster) }
    // SAFETY: inside the cluster by the guard.
    unsafe target.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: cluster[first..<first + target.count]))
  }
}
