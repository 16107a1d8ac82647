/// What an L2 entry says of a guest cluster.
///
///     0                 what lies below, or zeros
///     bit 63 clear      host offset of the cluster, a multiple of 512
///     bit 63 set        compressed: the low 63 - c bits are the host offset of the packed bytes, the c bits
///                       above them how many there are (c: cluster bits)
enum QcowEntry: Equatable {
  case unallocated
  case cluster(hostOffset: UInt64)
  case packed(hostOffset: UInt64, byteCount: UInt64)

  private static let compressedBit: UInt64 = 1 << 63

  init(raw: UInt64, _ geometry: QcowGeometry) {
    if raw & Self.compressedBit != 0 {
      let bits = 63 - geometry.clusterBits
      self = .packed(
        hostOffset: raw & ((1 << bits) - 1), byteCount: (raw >> bits) & (geometry.clusterSize - 1))
    } else {
      self = raw == 0 ? .unallocated : .cluster(hostOffset: raw)
    }
  }

  /// The entry of packed bytes, nil where it has no room for their place or number.
  static func packedRaw(at hostOffset: UInt64, byteCount: UInt64, _ geometry: QcowGeometry) -> UInt64? {
    let bits = 63 - geometry.clusterBits
    guard hostOffset >> bits == 0, byteCount > 0, byteCount < geometry.clusterSize else { return nil }
    return compressedBit | byteCount << bits | hostOffset
  }
}
