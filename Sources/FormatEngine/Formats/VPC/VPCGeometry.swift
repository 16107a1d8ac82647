/// Every size and shift of a dynamic disk.
struct VPCGeometry {
  /// Guest bytes of a block, a power of two, without its bitmap.
  let blockSize: UInt64
  /// Blocks of the disk: entries of the table that mean something.
  let blockCount: UInt64
  let blockBits: UInt64
  /// Bytes of a block's bitmap, which is filled up to whole sectors.
  let bitmapSize: UInt64

  static let sectorSize: UInt64 = 512
  /// An entry of a block that is not there.
  static let unused = UInt32.max

  /// `blockSize` must be a power of two, at least a sector.
  init(blockSize: UInt64, virtualSize: UInt64) {
    self.blockSize = blockSize
    blockBits = UInt64(blockSize.trailingZeroBitCount)
    blockCount = virtualSize.dividedRoundingUp(by: blockSize)
    bitmapSize = (blockSize / Self.sectorSize).dividedRoundingUp(by: 8).aligned(upTo: Self.sectorSize)
  }

  /// Bytes of a block with its bitmap before it.
  var roomSize: UInt64 { bitmapSize + blockSize }

  func blockIndex(_ guestOffset: UInt64) -> UInt64 { guestOffset >> blockBits }
  func offsetInBlock(_ guestOffset: UInt64) -> UInt64 { guestOffset & (blockSize - 1) }

  /// Where the room of an entry begins, with its bitmap.
  static func roomOffset(_ entry: UInt32) -> UInt64 { UInt64(entry) * sectorSize }
}

extension VPCGeometry {
  /// The sectors that bytes of a block lie in.
  static func sectors(of bytes: Range<UInt64>) -> Range<UInt64> {
    bytes.lowerBound / sectorSize..<bytes.upperBound.dividedRoundingUp(by: sectorSize)
  }
}
