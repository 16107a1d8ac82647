/// Places and sizes that follow from a header, in bytes. Clusters need not be a power of two: those of 63 sectors
/// were the first.
struct ParallelsGeometry {
  let clusterSize: UInt64
  /// Bytes that an entry of the BAT counts.
  let entryUnit: UInt64
  let entryCount: UInt64
  /// Whether every cluster must lie at a multiple of the cluster size.
  let isExtended: Bool

  /// The BAT stands behind the header.
  static let batOffset = UInt64(ParallelsHeader.byteCount)

  init(_ header: ParallelsHeader) {
    clusterSize = UInt64(header.clusterSectors) * 512
    isExtended = header.dialect == .extended
    entryUnit = isExtended ? clusterSize : 512
    entryCount = UInt64(header.entryCount)
  }

  /// At most 2^32 clusters of 2 GiB: it does not overflow.
  func hostOffset(of entry: UInt32) -> UInt64 { UInt64(entry) * entryUnit }

  /// The host offset must be one that an entry can have (`hostLimit`).
  func entry(for hostOffset: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hostOffset / entryUnit) }

  /// First host byte that no cluster may reach: entries have 32 bits.
  var hostLimit: UInt64 { min(UInt64(UInt32.max) * entryUnit, maximumFileOffset) }

  /// Where the data area begins where nothing stands between it and the BAT.
  var firstDataOffset: UInt64 {
    let end = Self.batOffset + entryCount * 4
    let unit = isExtended ? clusterSize : 512
    return end.raised(to: unit)
  }

  /// Where the data area begins by the header; nil where that cannot be.
  func dataOffset(_ header: ParallelsHeader, fileEnd: UInt64) -> UInt64? {
    let stored = UInt64(header.dataSector) * 512
    if stored == 0 && !isExtended { return firstDataOffset }
    guard stored >= firstDataOffset, stored <= fileEnd else { return nil }
    return isExtended && stored % clusterSize != 0 ? nil : stored
  }
}
