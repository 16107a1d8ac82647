/// How many references to each host cluster a check has come across, for one window of the file at a time.
///
/// Two bytes a cluster, in memory that the system hands out page by page as it is touched: a large and
/// mostly empty file costs little. The rare larger counts stand aside.
@safe final class Qcow2ClusterCounts {
  /// Clusters that are counted now; references to others are passed over.
  private(set) var window: Range<UInt64>
  /// In which other windows clusters lie that were passed over since `forgetPassed`: bits by their numbers. The last one
  /// stands for all that follow.
  private(set) var passedWindows: UInt64 = 0
  /// The same before that.
  private var allPassedWindows: UInt64 = 0
  /// More references than this cannot be counted by the image's own counts.
  private let maximumCount: UInt64
  let windowSize: UInt64
  let byteCount: Int
  private let counts: UnsafeMutablePointer<UInt16>
  private var large: [UInt64: UInt64] = [:]
  /// Up to here references are what stands in `counts`, and the image can count them.
  private let fastLimit: UInt64
  /// False: too many clusters have so many references that they would have to stand aside.
  private(set) var isExact = true

  /// 2^31 clusters are 128 TiB of 64 KiB each, and 4 GiB of counts if all of them are in use and counted at once.
  private static let maximumClusterCount: UInt64 = 1 << 31
  /// 40 MiB of counts: 1.25 TiB of clusters of 64 KiB.
  static let usualWindowSize: UInt64 = 20 << 20
  /// As many snapshots are needed for that many references, and wider counts than the usual 16 bits.
  private static let maximumLargeCounts = 1 << 18

  /// `windowSize`: nil where all clusters are to be counted at once.
  init(clusterCount: UInt64, maximumCount: UInt64 = .max, windowSize: UInt64? = nil) throws(EngineError) {
    guard clusterCount <= Self.maximumClusterCount else {
      throw EngineError(.tooLarge, "The image file has too many clusters to check (\(clusterCount))")
    }
    self.windowSize = max(min(clusterCount, windowSize ?? clusterCount), 1)
    window = 0..<self.windowSize
    self.maximumCount = maximumCount
    fastLimit = min(maximumCount, UInt64(UInt16.max - 1))
    byteCount = Int(self.windowSize) * 2
    guard let memory = unsafe AnonymousMemory.map(byteCount: byteCount) else {
      throw EngineError(.system(errno: 12), "No memory to check an image file of \(clusterCount) clusters")
    }
    unsafe counts = memory.bindMemory(to: UInt16.self, capacity: Int(self.windowSize))
  }

  deinit { unsafe AnonymousMemory.unmap(counts, byteCount: byteCount) }

  /// Goes on to the clusters behind those that were counted, with no references to any of them.
  func moveOn() {
    // SAFETY: that many elements were mapped.
    unsafe counts.update(repeating: 0, count: Int(windowSize))
    large.removeAll()
    window = window.upperBound..<window.upperBound + windowSize
  }

  /// The window's bit in `passedWindows`.
  var windowBit: UInt64 { bit(ofWindowAt: window.lowerBound) }

  private func bit(ofWindowAt cluster: UInt64) -> UInt64 { 1 << min(cluster / windowSize, 63) }

  /// Whether anything was passed over that lies in the window: else nothing refers to it.
  var wasPassed: Bool { (allPassedWindows | passedWindows) & windowBit != 0 }

  func forgetPassed() {
    allPassedWindows |= passedWindows
    passedWindows = 0
  }

  private func notePassed(_ cluster: UInt64) { passedWindows |= bit(ofWindowAt: cluster) }

  /// Notes the clusters of a range that lie in other windows; those of a range outside of any file take no time either.
  func notePassed(_ clusters: Range<UInt64>) {
    guard let last = clusters.last, clusters.lowerBound < window.lowerBound || last >= window.upperBound
    else {
      return
    }
    let bits = bit(ofWindowAt: last)
    passedWindows |= bits | (bits - bit(ofWindowAt: clusters.lowerBound))
  }

  /// `cluster` must lie in the window.
  subscript(cluster: UInt64) -> UInt64 {
    precondition(window.contains(cluster))
    // SAFETY: as many elements as the window has.
    let count = unsafe counts[Int(cluster - window.lowerBound)]
    return count < .max ? UInt64(count) : large[cluster, default: UInt64(UInt16.max)]
  }

  /// Counts further references where that is a matter of one addition; false, and nothing was counted, where it takes `add`.
  @inline(__always)
  func addFast(_ number: UInt64, to cluster: UInt64) -> Bool {
    let index = cluster &- window.lowerBound
    guard index < windowSize else {
      notePassed(cluster)
      return true
    }
    // SAFETY: as above.
    let count = UInt64(unsafe counts[Int(index)])
    guard count < fastLimit, number <= fastLimit - count else { return false }
    unsafe counts[Int(index)] = UInt16(truncatingIfNeeded: count + number)
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

  private func set(_ cluster: UInt64, to count: UInt64) {
    // SAFETY: as above; `cluster` has just been asked for.
    let index = Int(cluster - window.lowerBound)
    if count < UInt64(UInt16.max) {
      unsafe counts[index] = UInt16(count)
      large[cluster] = nil
    } else {
      unsafe counts[index] = .max
      // Nobody asks for more than the image can count.
      guard maximumCount > UInt64(UInt16.max) else { return }
      guard large.count < Self.maximumLargeCounts || large[cluster] != nil else { return isExact = false }
      large[cluster] = count
    }
  }
}
