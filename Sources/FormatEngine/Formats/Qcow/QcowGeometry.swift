/// Every shift and mask of a QCOW image, from the widths of its clusters and L2 tables.
///
/// Guest offset: | L1 index | L2 index | offset in cluster |
struct QcowGeometry: Equatable, Sendable {
  /// 9 to 16: clusters of 512 bytes to 64 KiB.
  let clusterBits: UInt64
  /// 6 to 13: L2 tables of 512 bytes to 64 KiB. Not tied to the size of clusters.
  let l2Bits: UInt64

  static let clusterBitsRange: ClosedRange<UInt8> = 9...16
  static let l2BitsRange: ClosedRange<UInt8> = 6...13

  var clusterSize: UInt64 { 1 << clusterBits }
  var l2ByteCount: UInt64 { 8 << l2Bits }
  /// Guest bytes that one L2 table describes: 2^29 at most.
  var coverageBits: UInt64 { clusterBits + l2Bits }

  func l1Index(_ guestOffset: UInt64) -> UInt64 { guestOffset >> coverageBits }
  func l2Index(_ guestOffset: UInt64) -> UInt64 { (guestOffset >> clusterBits) & ((1 << l2Bits) - 1) }
  func offsetInCluster(_ guestOffset: UInt64) -> UInt64 { guestOffset & (clusterSize - 1) }
  /// First guest byte after those that the L2 table for `guestOffset` describes.
  func tableEnd(_ guestOffset: UInt64) -> UInt64 { (l1Index(guestOffset) + 1) << coverageBits }

  /// L1 entries that a disk of this size needs.
  func l1Count(forVirtualSize size: UInt64) -> UInt64 { size.dividedRoundingUp(by: 1 << coverageBits) }
}
