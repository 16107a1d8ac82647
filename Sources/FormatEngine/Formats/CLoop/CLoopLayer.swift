/// An opened compressed loop image: every block is a zlib stream of its own.
final class CLoopLayer: ImageLayer {
  let virtualSize: UInt64
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = false
  private let file: any ByteStore
  private let fileEnd: UInt64
  /// Guest bytes of a block: any multiple of 512.
  private let blockSize: UInt64
  /// Protects the table, never data I/O. After `RangeLock`.
  private let offsets: Guarded<EntryTable<UInt64>>
  private let unpackers = ContextPool { () throws(EngineError) in try DeflateUnpacker(.zlib) }

  init(_ file: any ByteStore, _ header: CLoopHeader, fileEnd: UInt64) {
    self.file = file
    self.fileEnd = fileEnd
    virtualSize = header.virtualSize
    blockSize = UInt64(header.blockSize)
    let table = CLoopOffsets(header)
    offsets = Guarded(
      EntryTable(in: file, at: table.hostOffset, count: table.count, .bigEndian, writeOrder: nil))
  }

  func store(_ index: UInt16) -> any ByteStore { file.guestBytes }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let packed = try packedBytes(of: offset / blockSize)
    return Extent(
      .compressed, length: min(limit, blockSize - offset % blockSize), hostOffset: packed.lowerBound)
  }

  func packedUnit(at offset: UInt64) throws(EngineError) -> Range<UInt64> {
    let start = offset - offset % blockSize
    return start..<start + blockSize
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    guard offset % blockSize == 0, UInt64(buffer.count) == blockSize else {
      throw .corrupt("A block is unpacked whole", at: offset)
    }
    let packed = try packedBytes(of: offset / blockSize)
    // No stream of zlib is longer than this for so many bytes.
    let most = blockSize + blockSize / 1024 + 64
    guard packed.lowerBound < packed.upperBound, packed.upperBound <= fileEnd else {
      throw .corrupt("Block \(offset / blockSize) is empty or lies past the end of the file", at: offset)
    }
    let bytes = AlignedBuffer(byteCount: Int(min(most, packed.upperBound - packed.lowerBound)))
    unsafe try file.read(into: bytes.bytes, at: packed.lowerBound)
    try unpackers.with { (unpacker) throws(EngineError) in
      unsafe try unpacker.unpack(UnsafeRawBufferPointer(bytes.bytes), into: buffer)
    }
  }

  /// Where a block's stream is in the file.
  private func packedBytes(of block: UInt64) throws(EngineError) -> Range<UInt64> {
    try offsets.withLock { (table) throws(EngineError) in
      let (start, end) = (try table.entry(at: block), try table.entry(at: block + 1))
      // The table was in order when it was opened.
      guard start <= end else { throw .corrupt("Offsets of block \(block) are out of order") }
      return start..<end
    }
  }
}
