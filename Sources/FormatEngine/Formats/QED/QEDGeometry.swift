/// Every shift and mask of a QED image, from the sizes of its clusters and tables.
///
/// Guest offset: | L1 index | L2 index | offset in cluster |
struct QEDGeometry: Equatable, Sendable {
  /// 4 KiB to 64 MiB, a power of two.
  let clusterSize: UInt64
  /// Clusters of the L1 table and of each L2 table: 1 to 16, a power of two.
  let tableClusters: UInt64

  static let clusterSizes: ClosedRange<UInt64> = 4 * KiB...64 * MiB
  static let tableSizes: ClosedRange<UInt64> = 1...16

  var tableByteCount: UInt64 { tableClusters * clusterSize }
  /// Entries in a table of either level: 2^27 at most.
  var entryCount: UInt64 { tableByteCount / 8 }
  private var entryBits: UInt64 { UInt64(entryCount.trailingZeroBitCount) }
  private var clusterBits: UInt64 { UInt64(clusterSize.trailingZeroBitCount) }
  /// Guest bytes that one L2 table describes: 2^53 at most.
  var coverageBits: UInt64 { entryBits + clusterBits }

  func l1Index(_ guestOffset: UInt64) -> UInt64 { guestOffset >> coverageBits }
  func l2Index(_ guestOffset: UInt64) -> UInt64 { (guestOffset >> clusterBits) & (entryCount - 1) }
  func offsetInCluster(_ guestOffset: UInt64) -> UInt64 { guestOffset & (clusterSize - 1) }
  /// First guest byte after those that the L2 table for `guestOffset` describes.
  func tableEnd(_ guestOffset: UInt64) -> UInt64 { (l1Index(guestOffset) + 1) << coverageBits }

  /// Where the last whole cluster of a file ends; a file has whole sectors, and what is missing in the last are zeros.
  func end(ofFileOf byteCount: UInt64) -> UInt64 { byteCount.aligned(upTo: 512).aligned(downTo: clusterSize) }

  /// The largest disk that the tables can describe; larger ones than 2^63 bytes are nobody's.
  var maximumVirtualSize: UInt64 {
    let bits = entryBits + coverageBits
    return bits < 63 ? 1 << bits : maximumFileOffset
  }

  /// In whole sectors, and not more than the tables can describe.
  func allows(virtualSize: UInt64) -> Bool {
    virtualSize.isAligned(to: 512) && virtualSize <= maximumVirtualSize
  }
}

/// What an L2 entry says of a guest cluster (qed_spec.txt, "Data cluster offsets").
enum QEDEntry: Equatable {
  /// Entry 0: what lies below, or zeros.
  case unallocated
  /// Entry 1: zeros, whatever lies below.
  case zeros
  /// A multiple of the cluster size.
  case cluster(hostOffset: UInt64)

  static let zerosRaw: UInt64 = 1

  init(raw: UInt64) {
    switch raw {
    case 0: self = .unallocated
    case Self.zerosRaw: self = .zeros
    default: self = .cluster(hostOffset: raw)
    }
  }
}
