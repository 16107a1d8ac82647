import FormatEngine

extension ImageChain {
  /// Packs whole units of guest bytes, and stores them in one batch as `convert -c` does.
  func writePacked(_ bytes: [UInt8], at offset: UInt64) throws(EngineError) {
    guard let layer = top as? any CompressedWriting else { throw .unsupported("It does not pack") }
    let packer = try layer.makePacker()
    let unit = Int(layer.compressionUnit)
    let (source, packed) = (AlignedBuffer(byteCount: bytes.count), AlignedBuffer(byteCount: bytes.count))
    unsafe source.bytes.copyBytes(from: bytes)
    var pieces: [PackedPiece] = []
    var end = 0
    for start in stride(from: 0, to: bytes.count, by: unit) {
      let count = unsafe try packer.pack(
        UnsafeRawBufferPointer(rebasing: source.bytes[start..<start + unit]),
        into: UnsafeMutableRawBufferPointer(rebasing: packed.bytes[end..<end + unit]))
      guard let count else { throw .invalid("It does not get smaller") }
      pieces.append(PackedPiece(guestOffset: offset + UInt64(start), byteCount: count))
      end += count
    }
    unsafe try layer.storeCompressed(UnsafeRawBufferPointer(rebasing: packed.bytes[..<end]), pieces: pieces)
    try layer.finishCompressed()
  }
}
