extension Qcow2Refcounts {
  /// Sets the count of each cluster of a run. Every one of them has a block.
  func set(_ run: Range<UInt64>, to value: UInt64) throws(EngineError) {
    try change(run) { _ in value }
  }

  /// Adds a reference to a cluster, which has a block.
  func increment(_ cluster: UInt64) throws(EngineError) { try increment(cluster..<cluster + 1) }

  /// Adds a reference to each cluster of a run. Every one of them has a block.
  func increment(_ run: Range<UInt64>) throws(EngineError) {
    let maximum = maximumCount
    var hasRoom = true
    try change(run) { old in
      hasRoom = hasRoom && old < maximum
      return old < maximum ? old + 1 : old
    }
    guard hasRoom else {
      throw EngineError(
        .tooLarge, "A cluster would have more references than \(1 << order) bits can count")
    }
  }

  /// Takes a reference from a cluster and says how many are left. A count of 0 stays as it is: an image
  /// that counts wrong is for `check` to tell.
  func decrement(_ cluster: UInt64) throws(EngineError) -> UInt64 {
    let old = try count(of: cluster)
    guard old > 0 else { return 0 }
    try change(cluster..<cluster + 1) { $0 - 1 }
    return old - 1
  }

  /// The first cluster from `start` on that nobody uses. Past the last block all are free.
  func firstFree(from start: UInt64) throws(EngineError) -> UInt64 {
    var cluster = start
    let end = UInt64(table.count) << blockCoverageBits
    while cluster < end {
      guard let block = try blockOffset(of: cluster) else { return cluster }
      let place = try place(of: cluster, in: block)
      let slice = unsafe Qcow2RefcountSlice(bytes: try blocks.slice(at: place.sliceOffset), order: order)
      var index = place.index
      while index < place.countInSlice {
        if slice[index] == 0 { return cluster }
        index += 1
        cluster += 1
      }
    }
    return cluster
  }

  /// The first cluster of a run that counts as free.
  func firstFree(in run: Range<UInt64>) throws(EngineError) -> UInt64? {
    var cluster = run.lowerBound
    while cluster < run.upperBound {
      guard let window = try window(of: cluster) else { return cluster }
      let end = min(window.clusters.upperBound, run.upperBound)
      while cluster < end {
        if window.slice[cluster - window.clusters.lowerBound] == 0 { return cluster }
        cluster += 1
      }
    }
    return nil
  }

  /// The slice that counts `cluster`, and which clusters it counts; nil where no block counts it.
  func window(of cluster: UInt64) throws(EngineError) -> (clusters: Range<UInt64>, slice: Qcow2RefcountSlice)?
  {
    guard let block = try blockOffset(of: cluster) else { return nil }
    let place = try place(of: cluster, in: block)
    let first = cluster - place.index
    let slice = unsafe Qcow2RefcountSlice(bytes: try blocks.slice(at: place.sliceOffset), order: order)
    return (first..<first + place.countInSlice, slice)
  }

  private struct Place {
    var sliceOffset: UInt64
    /// Index of the cluster's count in its slice.
    var index: UInt64
    var countInSlice: UInt64
  }

  private func place(of cluster: UInt64, in block: UInt64) throws(EngineError) -> Place {
    let countInSlice = (UInt64(blocks.sliceByteCount) << 3) >> order
    let indexInBlock = cluster & ((1 << blockCoverageBits) - 1)
    let sliceNumber = indexInBlock / countInSlice
    return Place(
      sliceOffset: block + sliceNumber * UInt64(blocks.sliceByteCount),
      index: indexInBlock % countInSlice, countInSlice: countInSlice)
  }

  /// Replaces the count of each cluster of a run, which all have blocks.
  func change(_ run: Range<UInt64>, _ newCount: (UInt64) -> UInt64) throws(EngineError) {
    var cluster = run.lowerBound
    while cluster < run.upperBound {
      guard let block = try blockOffset(of: cluster) else {
        throw .corrupt("Cluster \(cluster) has no refcount block")
      }
      let place = try place(of: cluster, in: block)
      let slice = unsafe Qcow2RefcountSlice(bytes: try blocks.slice(at: place.sliceOffset), order: order)
      let last = min(place.countInSlice, place.index + (run.upperBound - cluster))
      for index in place.index..<last { slice[index] = newCount(slice[index]) }
      blocks.markDirty(at: place.sliceOffset)
      cluster += last - place.index
    }
  }
}

/// Reads counts one after the other. Neighbours come from the same slice without another look-up, so nothing
/// else may use the counts while one of these is at work.
struct Qcow2RefcountReader {
  private let refcounts: Qcow2Refcounts
  private var window: Range<UInt64> = 0..<0
  /// Nil where no block counts the window.
  private var slice: Qcow2RefcountSlice?
  private var isReadable = true

  init(_ refcounts: Qcow2Refcounts) { self.refcounts = refcounts }

  /// The count of a cluster, nil where its block cannot be read. Clusters without a block count as free.
  mutating func count(of cluster: UInt64) -> UInt64? {
    if !window.contains(cluster) { move(to: cluster) }
    guard let slice else { return isReadable ? 0 : nil }
    return slice[cluster - window.lowerBound]
  }

  private mutating func move(to cluster: UInt64) {
    let coverage: UInt64 = 1 << refcounts.blockCoverageBits
    do throws(EngineError) {
      isReadable = true
      if let found = try refcounts.window(of: cluster) {
        (window, slice) = (found.clusters, found.slice)
      } else {
        // No block: so it is up to the end of what one would count.
        (window, slice) = (cluster..<(cluster + 1).aligned(upTo: coverage), nil)
      }
    } catch {
      (window, slice, isReadable) = (cluster..<(cluster + 1).aligned(upTo: coverage), nil, false)
    }
  }
}
