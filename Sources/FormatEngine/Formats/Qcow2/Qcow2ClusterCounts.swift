/// How many references to each host cluster a check has come across.
///
/// Two bytes a cluster, in memory that the system hands out page by page as it is touched: a large and
/// mostly empty file costs little. The rare larger counts stand aside.
@safe final class Qcow2ClusterCounts {
  /// Clusters that can be counted.
  let clusterCount: UInt64
  /// More references than this cannot be counted by the image's own counts.
  private let maximumCount: UInt64
  private let counts: UnsafeMutablePointer<UInt16>
  private var large: [UInt64: UInt64] = [:]
  /// Up to here references are what stands in `counts`, and the image can count them.
  private let fastLimit: UInt64

  /// 2^31 clusters are 128 TiB of 64 KiB each, and 4 GiB of counts if all of them are in use.
  private static let maximumClusterCount: UInt64 = 1 << 31

  init(clusterCount: UInt64, maximumCount: UInt64 = .max) throws(EngineError) {
    guard clusterCount <= Self.maximumClusterCount else {
      throw EngineError(.tooLarge, "The image file has too many clusters to check (\(clusterCount))")
    }
    self.clusterCount = clusterCount
    self.maximumCount = maximumCount
    fastLimit = min(maximumCount, UInt64(UInt16.max - 1))
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

  /// Counts further references where that is a matter of one addition; false, and nothing was counted, where it takes `add`.
  /// `cluster` must be below `clusterCount`.
  @inline(__always)
  func addFast(_ number: UInt64, to cluster: UInt64) -> Bool {
    // SAFETY: as above.
    let count = UInt64(unsafe counts[Int(cluster)])
    guard count < fastLimit, number <= fastLimit - count else { return false }
    unsafe counts[Int(cluster)] = UInt16(truncatingIfNeeded: count + number)
    return true
  }

  /// Counts further references, and says how many of them the image's own count has no room for.
  func add(_ number: UInt64, to cluster: UInt64) -> UInt64 {
    if addFast(number, to: cluster) { return 0 }
    let old = self[cluster]
    set(cluster, to: old + number)
    return min(number, old + number - min(old + number, maximumCount))
  }

  /// As many references as the image's own count has room for.
  func countable(_ cluster: UInt64) -> UInt64 { min(self[cluster], maximumCount) }

  /// Takes one reference back, where there is one.
  func decrement(_ cluster: UInt64) {
    let old = self[cluster]
    if old > 0 { set(cluster, to: old - 1) }
  }

  private func set(_ cluster: UInt64, to count: UInt64) {
    // SAFETY: as above.
    if count < UInt64(UInt16.max) {
      unsafe counts[Int(cluster)] = UInt16(count)
      large[cluster] = nil
    } else {
      unsafe counts[Int(cluster)] = .max
      large[cluster] = count
    }
  }
}
