/// Unpacks chunks of every kind. Any number of threads.
final class DMGChunkCodec: Sendable {
  private let zlib = ContextPool { () throws(EngineError) in try DeflateUnpacker(.zlib) }

  /// Fills `target`, which is as long as the chunk's sectors.
  func unpack(_ chunk: DMGChunk, from file: any ByteStore, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    let packed = AlignedBuffer(byteCount: Int(min(chunk.byteCount, DMGChunk.maximumByteCount)))
    unsafe try file.read(into: packed.bytes, at: chunk.hostOffset)
    let source = unsafe UnsafeRawBufferPointer(packed.bytes)
    switch chunk.kind {
    case .adc: unsafe try ADC.unpack(source, into: target)
    case .zlib:
      try zlib.with { (unpacker) throws(EngineError) in unsafe try unpacker.unpack(source, into: target) }
    case .bzip2: unsafe try Bzip2.unpack(source, into: target)
    case .lzfse: unsafe try LZFSE.unpack(source, into: target)
    case .lzma: unsafe try XZ.unpack(source, into: target)
    default:
      throw .unsupported(
        "Chunks of the kind 0x\(String(chunk.kind.rawValue, radix: 16)) are not supported")
    }
  }
}
