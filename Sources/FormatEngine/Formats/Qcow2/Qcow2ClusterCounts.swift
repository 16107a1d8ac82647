/// How many references to each host cluster a check has come across.
///
/// Two bytes a cluster, in memory that the system hands out page by page as it is touched: a large and
/// mostly empty file costs little. The rare larger counts stand aside.
@safe final class Qcow2ClusterCounts {
  /// Clusters in the file, the last one perhaps cut short.
  let clusterCount: UInt64
  private let counts: UnsafeMutablePointer<UInt16>
  private var large: [UInt64: UInt64] = [:]

  /// 2^31 clusters are 128 TiB of 64 KiB each, and 4 GiB of counts if all of them are in use.
  private static let maximumClusterCount: UInt64 = 1 << 31

  init(clusterCount: UInt64) throws(EngineError) {
    guard clusterCount <= Self.maximumClusterCount else {
      throw EngineError(.tooLarge, "The image file has too many clusters to check (\(clusterCount))")
    }
    self.clusterCount = clusterCount
    guard let memory = unsafe AnonymousMemory.map(byteCount: Int(max(clusterCount, 1)) * 2) else {
      throw EngineError(.system(errno: 12), "No memory to check an image file of \(clusterCount) clusters")
    }
    unsafe counts = memory.bindMemory(to: UInt16.self, capacity: Int(max(clusterCount, 1)))
  }

  deinit { unsafe AnonymousMemory.unmap(counts, byteCount: Int(max(clusterCount, 1)) * 2) }

  /// `cluster` must be below `clusterCount`.
  subscript(cluster: UInt64) -> UInt64 {
    // SAFETY: callers stay below `clusterCount`, the number of elements.
    let count = unsafe counts[Int(cluster)]
    return count < .max ? UInt64(count) : large[cluster, default: UInt64(UInt16.max)]
  }

  /// Counts one more reference. `cluster` must be below `clusterCount`.
  func increment(_ cluster: UInt64) {
    // SAFETY: as above.
    let count = unsafe counts[Int(cluster)]
    if count < .max - 1 {
      unsafe counts[Int(cluster)] = count + 1
    } else {
      large[cluster] = self[cluster] + 1
      unsafe counts[Int(cluster)] = .max
    }
  }
}
