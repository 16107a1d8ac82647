/// Every shift and mask of a qcow2 image, from its cluster size and the width of its L2 entries.
///
/// Guest offset: | L1 index | L2 index | offset in cluster |
struct Qcow2Geometry: Equatable, Sendable {
  /// 9 to 21: clusters of 512 bytes to 2 MiB.
  let clusterBits: UInt64
  /// Extended L2 entries: 16 bytes each, with 32 subclusters.
  let hasSubclusters: Bool

  static let clusterBitsRange: ClosedRange<UInt32> = 9...21
  static let subclusterCount: UInt64 = 32

  var clusterSize: UInt64 { 1 << clusterBits }
  var entryByteCount: UInt64 { hasSubclusters ? 16 : 8 }
  var l2Bits: UInt64 { clusterBits - (hasSubclusters ? 4 : 3) }
  /// Entries in one L2 table.
  var l2Count: UInt64 { 1 << l2Bits }
  /// Guest bytes that one L2 table describes, and so one L1 entry.
  var l2CoverageBits: UInt64 { clusterBits + l2Bits }
  var l2Coverage: UInt64 { 1 << l2CoverageBits }
  /// Guest bytes that can be stored on their own.
  var subclusterSize: UInt64 { hasSubclusters ? clusterSize / Self.subclusterCount : clusterSize }

  func l1Index(_ guestOffset: UInt64) -> UInt64 { guestOffset >> l2CoverageBits }
  func l2Index(_ guestOffset: UInt64) -> UInt64 { (guestOffset >> clusterBits) & (l2Count - 1) }
  func offsetInCluster(_ guestOffset: UInt64) -> UInt64 { guestOffset & (clusterSize - 1) }

  /// Lets go of the room of host clusters that nobody refers to.
  func forget(_ clusters: Range<UInt64>, in file: any ByteStore) {
    guard !clusters.isEmpty else { return }
    file.forget(at: clusters.lowerBound << clusterBits, count: UInt64(clusters.count) << clusterBits)
  }

  /// L1 entries that a disk of this size needs.
  func l1Count(forVirtualSize size: UInt64) -> UInt64 { size.dividedRoundingUp(by: l2Coverage) }

  /// Bits of a compressed entry that hold the host offset (qcow2.txt, "Compressed Clusters Descriptor").
  var compressedOffsetBits: UInt64 { 62 - (clusterBits - 8) }
}
