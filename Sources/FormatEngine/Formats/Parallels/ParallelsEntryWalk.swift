/// All entries of a BAT that are not 0, from first to last, read from the file without a cache. Holes of the file
/// are passed over.
struct ParallelsEntryWalk {
  private let file: any ByteStore
  /// First byte after the BAT, or after what the file has of it. An entry of which the file has a part counts: it is
  /// read, and its other bytes are zeros.
  private let end: UInt64
  private let buffer = AlignedBuffer(byteCount: Int(64 * KiB))
  /// Where the buffer's bytes are from.
  private var bufferOffset: UInt64 = ParallelsGeometry.batOffset
  private var bufferCount = 0
  /// Inside the buffer.
  private var position = 0

  init(_ geometry: ParallelsGeometry, in file: any ByteStore) throws(EngineError) {
    self.file = file
    end = min(ParallelsGeometry.batOffset + geometry.entryCount * 4, try file.byteCount().aligned(upTo: 4))
  }

  /// The next entry, nil after the last one.
  mutating func next() throws(EngineError) -> (index: UInt64, entry: UInt32)? {
    while true {
      while position + 4 <= bufferCount {
        // SAFETY: the loop's condition keeps it inside what was read.
        let raw = unsafe buffer.bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self)
        position += 4
        if raw != 0 {
          let offset = bufferOffset + UInt64(position - 4) - ParallelsGeometry.batOffset
          return (offset / 4, UInt32(littleEndian: raw))
        }
      }
      guard try fill() else { return nil }
    }
  }

  /// Reads the next piece that may hold something; false at the end.
  private mutating func fill() throws(EngineError) -> Bool {
    var offset = bufferOffset + UInt64(bufferCount)
    while offset + 4 <= end {
      let run = try file.run(at: offset, limit: end - offset)
      if run.isData { break }
      // Whole entries: a hole may end inside of one.
      let skipped = run.length & ~3
      guard skipped > 0 else { break }
      offset += skipped
    }
    guard offset + 4 <= end else { return false }
    bufferOffset = offset
    bufferCount = Int(min(end - offset, UInt64(buffer.byteCount)) & ~3)
    position = 0
    unsafe try file.read(into: buffer.prefix(bufferCount), at: offset)
    if unsafe ZeroScan.isZero(UnsafeRawBufferPointer(buffer.prefix(bufferCount))) { position = bufferCount }
    return true
  }
}
