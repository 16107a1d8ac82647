/// Where the blocks of an image lie: every shift and product of the format.
struct VDIGeometry: Equatable, Sendable {
  let type: VDIImageType
  /// Guest bytes in a block, a power of two.
  let blockSize: UInt64
  /// Host bytes before the guest bytes of each block.
  let blockExtra: UInt64
  /// Entries of the block map.
  let blockCount: UInt64
  /// Host offset of the first block.
  let dataOffset: UInt64

  var blockBits: UInt64 { UInt64(blockSize.trailingZeroBitCount) }
  /// Host bytes from one block to the next.
  var unit: UInt64 { blockSize + blockExtra }

  func blockIndex(_ guestOffset: UInt64) -> UInt64 { guestOffset >> blockBits }
  func offsetInBlock(_ guestOffset: UInt64) -> UInt64 { guestOffset & (blockSize - 1) }

  /// Where room number `index` of the file begins; 2^32 rooms of 2^29 bytes stay below 2^62.
  func roomOffset(_ index: UInt32) -> UInt64 { dataOffset + UInt64(index) * unit }

  /// Where the guest bytes of room number `index` begin.
  func hostOffset(_ index: UInt32) -> UInt64 { roomOffset(index) + blockExtra }

  /// The room in which the guest bytes at `hostOffset` lie, which `hostOffset(_:)` gave.
  func roomIndex(_ hostOffset: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: (hostOffset &- dataOffset) / unit)
  }

  /// Rooms that begin before `byteCount`, the end of the file.
  func roomCount(inFileOf byteCount: UInt64) -> UInt64 {
    byteCount <= dataOffset ? 0 : (byteCount - dataOffset).dividedRoundingUp(by: unit)
  }
}

/// An entry of the block map.
struct VDIEntry: Equatable, Sendable {
  let raw: UInt32

  init(_ raw: UInt32) { self.raw = raw }

  /// Nothing is stored: the parent's bytes, or zeros.
  static let free = VDIEntry(0xffff_ffff)
  /// Reads as zeros, whatever the parent has.
  static let zeros = VDIEntry(0xffff_fffe)

  /// The number of the room that the block has in the file.
  var room: UInt32? { raw < Self.zeros.raw ? raw : nil }
}
