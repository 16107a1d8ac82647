/// Where the entries of a disk's blocks stand in the BAT ([MS-VHDX] 2.4, 2.5).
///
/// Blocks are counted in chunks: as many as one sector bitmap of 1 MiB has bits for. Behind the entries of each chunk's
/// payload blocks stands the entry of its sector bitmap, which only differencing disks use.
struct VHDXGeometry: Equatable, Sendable {
  let blockBits: UInt64
  let sectorBits: UInt64
  let virtualSize: UInt64
  let hasParent: Bool

  /// Bits in one sector bitmap block.
  private static let bitmapBits: UInt64 = 23

  /// Both sizes are powers of two.
  init(blockSize: UInt64, sectorSize: UInt64, virtualSize: UInt64, hasParent: Bool) {
    blockBits = UInt64(blockSize.trailingZeroBitCount)
    sectorBits = UInt64(sectorSize.trailingZeroBitCount)
    self.virtualSize = virtualSize
    self.hasParent = hasParent
  }

  var blockSize: UInt64 { 1 << blockBits }
  var sectorSize: UInt64 { 1 << sectorBits }
  var blockCount: UInt64 { virtualSize.dividedRoundingUp(by: blockSize) }
  /// Blocks to a chunk, as a power of two: 16 blocks of 256 MiB at least, so never negative.
  var chunkBits: UInt64 { Self.bitmapBits + sectorBits - blockBits }
  var chunkCount: UInt64 { blockCount.dividedRoundingUp(by: 1 << chunkBits) }

  /// Entries that the disk needs.
  var entryCount: UInt64 {
    guard blockCount > 0 else { return 0 }
    return hasParent ? chunkCount << chunkBits + chunkCount : entryIndex(ofBlock: blockCount - 1) + 1
  }

  func block(_ guestOffset: UInt64) -> UInt64 { guestOffset >> blockBits }
  func start(ofBlock block: UInt64) -> UInt64 { block << blockBits }
  func offsetInBlock(_ guestOffset: UInt64) -> UInt64 { guestOffset & (blockSize - 1) }
  func entryIndex(ofBlock block: UInt64) -> UInt64 { block + block >> chunkBits }
  func chunk(ofBlock block: UInt64) -> UInt64 { block >> chunkBits }
  func bitmapEntryIndex(ofChunk chunk: UInt64) -> UInt64 { (chunk + 1) << chunkBits + chunk }
  /// The bit of a guest byte's sector in the bitmap of its chunk.
  func bit(_ guestOffset: UInt64) -> UInt64 { guestOffset >> sectorBits & (1 << Self.bitmapBits - 1) }

  /// Guest bytes of a block: the last one may be cut short, and those past the end have none.
  func byteCount(ofBlock block: UInt64) -> UInt64 {
    let start = start(ofBlock: block)
    return start < virtualSize ? min(blockSize, virtualSize - start) : 0
  }
}
