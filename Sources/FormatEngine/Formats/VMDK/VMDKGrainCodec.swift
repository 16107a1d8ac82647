/// Unpacks the packed grains of one extent. Any number of threads.
final class VMDKGrainCodec: Sendable {
  private let file: any ByteStore
  private let grainSize: Int
  /// A marker with their length stands before the packed bytes.
  private let hasMarkers: Bool
  private let unpackers = ContextPool { () throws(EngineError) in try DeflateUnpacker(.zlib) }
  private let buffers: BufferPool

  init(_ geometry: VMDKGrainGeometry, file: any ByteStore) {
    self.file = file
    grainSize = Int(geometry.grainSize)
    hasMarkers = geometry.hasMarkers
    // Bytes that do not get smaller by packing grow a little; twice the grain is what QEMU takes.
    buffers = BufferPool(bufferByteCount: 2 * Int(geometry.grainSize) + 512)
  }

  /// Fills `target` with the grain whose record begins at `hostOffset`. It may be shorter at the end of an extent.
  func unpackGrain(at hostOffset: UInt64, into target: UnsafeMutableRawBufferPointer) throws(EngineError) {
    let buffer = buffers.take()
    defer { buffers.give(buffer) }
    let packed = unsafe try readPacked(at: hostOffset, into: buffer)
    try unpackers.with { (unpacker) throws(EngineError) in
      unsafe try VMDKGrainPacking.unpack(packed, with: unpacker, into: target, grainSize: grainSize)
    }
  }

  private func readPacked(at hostOffset: UInt64, into buffer: AlignedBuffer) throws(EngineError)
    -> UnsafeRawBufferPointer
  {
    guard hasMarkers else {
      unsafe try file.read(into: buffer.bytes, at: hostOffset)
      return unsafe UnsafeRawBufferPointer(buffer.bytes)
    }
    // Most grains get smaller: marker and bytes come with one read then.
    let prefix = Int(VMDKMarker.grainPrefix)
    let guess = unsafe buffer.prefix(min(buffer.byteCount, grainSize + 512))
    unsafe try file.read(into: guess, at: hostOffset)
    let size = unsafe Int(UInt32(littleEndian: guess.loadUnaligned(fromByteOffset: 8, as: UInt32.self)))
    guard size > 0, size <= buffer.byteCount - prefix else {
      throw .corrupt("A packed grain has a length of \(size) bytes", at: hostOffset)
    }
    if prefix + size > guess.count {
      unsafe try file.read(into: buffer.prefix(prefix + size), at: hostOffset)
    }
    return unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[prefix..<prefix + size])
  }
}
