/// Which clusters of the data area are in use, one bit each: the format has no such table, so it is made from the
/// BAT. Clusters are numbered from the start of the data area. Lives in its layer's lock.
struct ParallelsUsedClusters {
  /// Where cluster 0 lies in the file.
  let dataOffset: UInt64
  let clusterSize: UInt64
  private let hostLimit: UInt64
  private var words: [UInt64] = []
  /// No cluster before this one is free.
  private var lowestFree: UInt64 = 0

  /// 64 MiB of bits: 512 TiB of data in clusters of 1 MiB.
  private static let maximumClusterCount: UInt64 = 1 << 29

  init(_ geometry: ParallelsGeometry, dataOffset: UInt64) {
    self.dataOffset = dataOffset
    clusterSize = geometry.clusterSize
    hostLimit = geometry.hostLimit
  }

  /// The clusters that the bytes from a host offset on lie in, which is not before the data area.
  func clusters(_ hostOffset: UInt64, _ byteCount: UInt64) -> Range<UInt64> {
    let start = hostOffset - dataOffset
    return start / clusterSize..<(start + byteCount).dividedRoundingUp(by: clusterSize)
  }

  func hostOffset(of cluster: UInt64) -> UInt64 { dataOffset + cluster * clusterSize }

  private func isUsed(_ cluster: UInt64) -> Bool {
    let word = Int(cluster >> 6)
    return word < words.count && words[word] & (1 << (cluster & 63)) != 0
  }

  /// Marks clusters as used; false where one of them was already.
  mutating func use(_ clusters: Range<UInt64>) throws(EngineError) -> Bool {
    guard clusters.upperBound <= Self.maximumClusterCount else {
      throw .unsupported("Images with data beyond \(Self.maximumClusterCount) clusters are not changed here")
    }
    let needed = Int((clusters.upperBound + 63) >> 6)
    if needed > words.count { words.append(contentsOf: repeatElement(0, count: needed - words.count)) }
    var wereFree = true
    for cluster in clusters {
      if isUsed(cluster) { wereFree = false }
      words[Int(cluster >> 6)] |= 1 << (cluster & 63)
    }
    return wereFree
  }

  mutating func free(_ clusters: Range<UInt64>) {
    for cluster in clusters where isUsed(cluster) { words[Int(cluster >> 6)] &= ~(1 << (cluster & 63)) }
    lowestFree = min(lowestFree, clusters.lowerBound)
  }

  /// Takes free clusters in a row, at least one and at most `count`: the first that there are.
  mutating func take(atMost count: UInt64) throws(EngineError) -> Range<UInt64> {
    let first = firstFree()
    lowestFree = first
    var end = first
    let limit = min(first + max(count, 1), Self.maximumClusterCount, (hostLimit - dataOffset) / clusterSize)
    while end < limit, !isUsed(end) { end += 1 }
    guard end > first else {
      throw EngineError(.tooLarge, "The image file has reached the largest size that its format can have")
    }
    _ = try use(first..<end)
    lowestFree = end
    return first..<end
  }

  private func firstFree() -> UInt64 {
    var word = Int(lowestFree >> 6)
    // What lies before it in its own word is used.
    while word < words.count, words[word] == .max { word += 1 }
    guard word < words.count else { return UInt64(word) << 6 }
    return UInt64(word) << 6 + UInt64((~words[word]).trailingZeroBitCount)
  }

  /// First host byte after everything that is in use.
  var end: UInt64 {
    guard let last = words.lastIndex(where: { $0 != 0 }) else { return dataOffset }
    return hostOffset(of: UInt64(last) << 6 + UInt64(64 - words[last].leadingZeroBitCount))
  }
}
