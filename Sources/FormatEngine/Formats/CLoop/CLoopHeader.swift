/// The header of a compressed loop image. All numbers are big-endian.
///
/// | bytes    | field                                                               |
/// |----------|---------------------------------------------------------------------|
/// | 0..127   | a shell script that mounts the file; its text is the only magic     |
/// | 128..131 | guest bytes of a block                                              |
/// | 132..135 | number of blocks                                                    |
/// | 136..    | one offset of 8 bytes for each block, and one for the end of the last |
struct CLoopHeader: Equatable, Sendable {
  static let byteCount = 136
  /// As every known writer begins its files.
  static let script = Array(
    "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n".utf8)

  var blockSize: UInt32
  var blockCount: UInt32

  var virtualSize: UInt64 { UInt64(blockSize) * UInt64(blockCount) }

  /// Reads and checks; the words are qemu-img's. The script is not looked at: who names the format may have a
  /// file with another one.
  static func parse(_ span: RawSpan) throws(EngineError) -> CLoopHeader {
    let header = CLoopHeader(
      blockSize: try span.bigEndian(UInt32.self, at: 128),
      blockCount: try span.bigEndian(UInt32.self, at: 132))
    guard header.blockSize > 0 else { throw .corrupt("block_size cannot be zero") }
    guard header.blockSize % 512 == 0 else {
      throw .corrupt("block_size \(header.blockSize) must be a multiple of 512")
    }
    // A block is unpacked whole. Writers make blocks of 64 KiB, some of 1 MiB.
    guard header.blockSize <= maximumBlockSize else {
      throw .corrupt("block_size \(header.blockSize) must be 64 MB or less")
    }
    guard header.blockCount <= UInt32.max / 8 else {
      throw .corrupt("n_blocks \(header.blockCount) must be \(UInt32.max / 8) or less")
    }
    // 4 TiB in blocks of 64 KiB.
    guard (UInt64(header.blockCount) + 1) * 8 <= 512 * MiB else {
      throw .corrupt("image requires too many offsets, try increasing block size")
    }
    return header
  }

  static let maximumBlockSize = 64 * UInt32(MiB)
}

/// The table of offsets: where each block begins and the last one ends.
struct CLoopOffsets: Sendable {
  let hostOffset = UInt64(CLoopHeader.byteCount)
  /// Offsets, one more than blocks.
  let count: UInt64

  init(_ header: CLoopHeader) { count = UInt64(header.blockCount) + 1 }

  var end: UInt64 { hostOffset + count * 8 }

  /// Offsets never fall, and no block is larger than packing can make it. Stops at the first that is wrong, so
  /// that a table which is not there takes no time.
  func check(in file: any ByteStore) throws(EngineError) {
    guard end <= (try file.byteCount()) else {
      throw .corrupt("The table of offsets goes past the end of the file")
    }
    var previous: UInt64?
    var index: UInt64 = 0
    while index < count {
      let pieceCount = min(count - index, MiB / 8)
      let bytes = try file.bytes(at: hostOffset + index * 8, count: Int(pieceCount * 8))
      let first = index
      previous = try bytes.parsed { (span) throws(EngineError) in
        var last = previous
        for number in 0..<pieceCount {
          let offset = try span.bigEndian(UInt64.self, at: Int(number * 8))
          if let last { try Self.check(offset, after: last, index: first + number) }
          last = offset
        }
        return last
      }
      if index == 0, try file.firstOffset(at: hostOffset) < end {
        throw .corrupt("The first block lies inside of the table of offsets")
      }
      index += pieceCount
    }
  }

  /// The words are qemu-img's.
  private static func check(_ offset: UInt64, after previous: UInt64, index: UInt64) throws(EngineError) {
    guard offset >= previous else {
      throw .corrupt("offsets not monotonically increasing at index \(index), image file is corrupt")
    }
    guard offset - previous <= 2 * UInt64(CLoopHeader.maximumBlockSize) else {
      throw .corrupt("invalid compressed block size at index \(index), image file is corrupt")
    }
  }
}

extension ByteStore {
  fileprivate func firstOffset(at hostOffset: UInt64) throws(EngineError) -> UInt64 {
    try bytes(at: hostOffset, count: 8).parsed { (span) throws(EngineError) in
      try span.bigEndian(UInt64.self, at: 0)
    }
  }
}
