/// Hands out host clusters and takes them back. Lives in its layer's lock.
///
/// Invariants: a cluster is counted before it is handed out; one that is given back is handed out again
/// only after a flush, when nothing on disk refers to it any more.
final class Qcow2Allocator {
  let refcounts: Qcow2Refcounts
  private let geometry: Qcow2Geometry
  private let file: any ByteStore
  private let order: WriteOrder
  /// Below it every cluster is in use, or in `reusable`.
  private var frontier: UInt64 = 1
  private var reusable = LowestFirst()
  /// Given back since the last flush: one reference each.
  private var released: [Range<UInt64>] = []
  /// Where packed bytes can go on: right behind the last ones.
  private var packedEnd: UInt64?
  /// Nobody knows which refcount table the header names: why no cluster is handed out any more.
  private(set) var failure: EngineError?

  /// Entries hold host offsets of 56 bits.
  private static let maximumHostOffset: UInt64 = 1 << 56
  /// Clusters that wait to be freed; more, and the next flush comes by itself.
  private static let maximumReleased = 1 << 16

  init(_ refcounts: Qcow2Refcounts, geometry: Qcow2Geometry, file: any ByteStore, order: WriteOrder) {
    self.refcounts = refcounts
    self.geometry = geometry
    self.file = file
    self.order = order
  }

  /// Metadata that must never be handed out, whatever the counts say: a damaged image counts wrong.
  var metadata = Qcow2MetadataMap()

  /// A run of neighbouring free clusters, at most `maximum`, now counted once each.
  func allocate(atMost maximum: UInt64) throws(EngineError) -> Range<UInt64> {
    if let failure { throw failure }
    let reused = try reuse(atMost: maximum)
    let run = if let reused { reused } else { try extend(atMost: maximum) }
    guard run.upperBound <= Self.maximumHostOffset >> geometry.clusterBits else {
      throw EngineError(.tooLarge, "The image file would be larger than its entries can address")
    }
    try metadata.requireNone(in: run, geometry)
    try refcounts.set(run, to: 1)
    return run
  }

  /// Clusters that were given back during this session.
  private func reuse(atMost maximum: UInt64) throws(EngineError) -> Range<UInt64>? {
    while let first = reusable.popLowest() {
      // Packed bytes may have gone on into it.
      guard try isFreeInBlock(first) else { continue }
      var end = first + 1
      while end - first < maximum, reusable.lowest == end, try isFreeInBlock(end) {
        _ = reusable.popLowest()
        end += 1
      }
      return first..<end
    }
    return nil
  }

  /// The first clusters that are free behind all that was looked at: nothing is looked at twice, so this costs
  /// the same however large the image is.
  private func extend(atMost maximum: UInt64) throws(EngineError) -> Range<UInt64> {
    while true {
      let first = try refcounts.firstFree(from: frontier)
      guard try ensureBlock(for: first) else { continue }
      var end = first + 1
      while end - first < maximum, try isFreeInBlock(end) { end += 1 }
      frontier = end
      return first..<end
    }
  }

  private func isFreeInBlock(_ cluster: UInt64) throws(EngineError) -> Bool {
    guard try refcounts.blockOffset(of: cluster) != nil else { return false }
    return try refcounts.count(of: cluster) == 0
  }

  /// Room for packed bytes: behind the last ones where they fit, else in clusters of their own. Every
  /// cluster touched gets one more reference.
  func allocatePacked(byteCount: UInt64) throws(EngineError) -> UInt64 {
    let size = geometry.clusterSize
    if let start = packedEnd, try continuePacked(from: start, byteCount: byteCount) {
      packedEnd = start + byteCount
      return start
    }
    let wanted = byteCount.dividedRoundingUp(by: size)
    var run = try allocate(atMost: wanted)
    while UInt64(run.count) < wanted {
      // Too short: packed bytes must lie in one piece. Its end is where a longer run may begin.
      release(run)
      run = try allocate(atMost: wanted)
    }
    let start = run.lowerBound << geometry.clusterBits
    packedEnd = start + byteCount
    return start
  }

  private func continuePacked(from start: UInt64, byteCount: UInt64) throws(EngineError) -> Bool {
    let bits = geometry.clusterBits
    guard !start.isAligned(to: geometry.clusterSize) else { return false }
    let first = start >> bits
    let last = (start + byteCount - 1) >> bits
    guard try refcounts.count(of: first) < refcounts.maximumCount else { return false }
    for cluster in (first + 1)..<(last + 1) {
      guard try isFreeInBlock(cluster), metadata.kind(in: cluster..<cluster + 1) == nil else { return false }
    }
    try refcounts.increment(first)
    if last > first { try refcounts.set(first + 1..<last + 1, to: 1) }
    if frontier > first, frontier <= last { frontier = last + 1 }
    return true
  }

  /// Nobody refers to these clusters any more, in memory: one reference each goes with the next flush.
  func release(_ clusters: Range<UInt64>) {
    if !clusters.isEmpty { released.append(clusters) }
  }

  /// Throws `corrupt` where a damaged entry leads into tables, which would become free room with it. What is counted for
  /// both may go, as a repair leaves it: the table's own count stays.
  func requireReleasable(_ clusters: Range<UInt64>) throws(EngineError) {
    guard !clusters.isEmpty, metadata.kind(in: clusters) != nil else { return }
    for cluster in clusters where metadata.kind(in: cluster..<cluster + 1) != nil {
      let waiting = UInt64(released.count { $0.contains(cluster) })
      guard try refcounts.count(of: cluster) > waiting + 1 else {
        return try metadata.requireNone(in: clusters, geometry)
      }
    }
  }

  /// Gives back at once what nothing on disk ever referred to.
  func takeBack(_ clusters: Range<UInt64>) throws(EngineError) {
    for cluster in clusters where try refcounts.decrement(cluster) == 0 {
      metadata.remove(cluster)
      if cluster < frontier { reusable.insert(cluster) }
    }
  }

  /// What lies below `cluster` is taken to be in use: for tests of places that no file gets to in their time.
  func beginSearching(at cluster: UInt64) { frontier = cluster }

  /// The same for packed bytes: each cluster that they touch has one reference less.
  func takeBackPacked(at hostOffset: UInt64, byteCount: UInt64) throws(EngineError) {
    // What goes on behind them could go on in a cluster that has another owner by then.
    packedEnd = nil
    let last = (hostOffset + byteCount - 1) >> geometry.clusterBits
    try takeBack(hostOffset >> geometry.clusterBits..<last + 1)
  }

  var wantsFlush: Bool { released.count >= Self.maximumReleased }

  /// Writes all tables in order, from a rank on; then what was released is free.
  func flush(fromRank rank: Int = 0) throws(EngineError) {
    try order.flush(from: rank)
    guard !released.isEmpty else { return }
    let done = released
    released = []
    packedEnd = nil
    for run in done { try takeBack(run) }
    try forgetFree(done)
    // Not urgent, so no second wait for the disk: a crash before it is there leaks clusters.
    if rank == 0 { try refcounts.blocks.writeBack() }
  }

  /// Lets go of the room of clusters that nobody refers to any more. They cannot have a new owner yet: this is
  /// still the call that made them free, in the layer's lock.
  private func forgetFree(_ runs: [Range<UInt64>]) throws(EngineError) {
    var pending: Range<UInt64> = 0..<0
    for cluster in runs.joined().sorted() {
      guard try refcounts.count(of: cluster) == 0 else { continue }
      if cluster == pending.upperBound, !pending.isEmpty {
        pending = pending.lowerBound..<cluster + 1
      } else if !pending.contains(cluster) {
        geometry.forget(pending, in: file)
        pending = cluster..<cluster + 1
      }
    }
    geometry.forget(pending, in: file)
  }

  // MARK: Growing

  /// Makes sure that a block counts `cluster`. False where one had to be made, and took the place.
  private func ensureBlock(for cluster: UInt64) throws(EngineError) -> Bool {
    let index = cluster >> refcounts.blockCoverageBits
    if index >= UInt64(refcounts.table.count) {
      try growTable(toCover: index, at: cluster)
      return false
    }
    if try refcounts.blockOffset(of: cluster) != nil { return true }
    // The block takes the cluster itself and counts itself: nothing counts anything there yet.
    try metadata.requireNone(in: cluster..<cluster + 1, geometry)
    try makeBlock(at: cluster)
    refcounts.table.set(index, to: cluster << geometry.clusterBits)
    try refcounts.set(cluster..<cluster + 1, to: 1)
    return false
  }

  private func makeBlock(at cluster: UInt64) throws(EngineError) {
    let start = cluster << geometry.clusterBits
    for offset in stride(from: start, to: start + geometry.clusterSize, by: refcounts.blocks.sliceByteCount) {
      _ = unsafe try refcounts.blocks.freshSlice(at: offset)
    }
  }

  /// Moves the refcount table to a larger place at `start`, the first cluster that it does not cover,
  /// together with the blocks that count the new place.
  private func growTable(toCover index: UInt64, at start: UInt64) throws(EngineError) {
    let entriesInCluster = geometry.clusterSize / 8
    let oldCount = UInt64(refcounts.table.count)
    let wanted = max(index + 1, oldCount + oldCount / 2) + 1
    var tableClusters = wanted.dividedRoundingUp(by: entriesInCluster)
    var blockCount: UInt64 = 1
    while true {
      let last = start + blockCount + tableClusters - 1
      let needed = (last >> refcounts.blockCoverageBits) - index + 1
      let neededTable = ((last >> refcounts.blockCoverageBits) + 1).dividedRoundingUp(by: entriesInCluster)
      if needed <= blockCount && neededTable <= tableClusters { break }
      blockCount = max(blockCount, needed)
      tableClusters = max(tableClusters, neededTable)
    }
    guard tableClusters * geometry.clusterSize <= Qcow2Header.maximumRefcountTableBytes else {
      throw EngineError(.tooLarge, "The image file would need too large a refcount table")
    }
    try moveTable(
      to: start + blockCount, clusters: tableClusters, blocks: start..<start + blockCount, from: index)
  }

  private func moveTable(
    to tableCluster: UInt64, clusters: UInt64, blocks: Range<UInt64>, from firstIndex: UInt64
  ) throws(EngineError) {
    let old = (hostOffset: refcounts.table.hostOffset, count: refcounts.table.count)
    let oldStart = old.hostOffset >> geometry.clusterBits
    let oldClusters = UInt64(old.count) * 8 / geometry.clusterSize
    // All that the old table says is on disk before anything of the new one is.
    try order.flush()
    do throws(EngineError) {
      for block in blocks { try makeBlock(at: block) }
      let entries = Int(clusters * geometry.clusterSize / 8)
      refcounts.table.relocate(to: tableCluster << geometry.clusterBits, count: entries)
      for (index, block) in blocks.enumerated() {
        refcounts.table.set(firstIndex + UInt64(index), to: block << geometry.clusterBits)
      }
      try refcounts.set(blocks.lowerBound..<tableCluster + clusters, to: 1)
      try order.flush()
      try nameTable(
        at: refcounts.table.hostOffset, clusters: clusters, insteadOf: (old.hostOffset, oldClusters))
    } catch {
      // The header names the old table, which is on disk as it was: what only the new one counts is nobody's.
      refcounts.table.putBack(to: old.hostOffset, count: old.count)
      let byteCount = UInt64(blocks.count) * geometry.clusterSize
      refcounts.blocks.drop(at: blocks.lowerBound << geometry.clusterBits, count: byteCount)
      throw error
    }
    metadata.move(.refcountTable, to: tableCluster..<tableCluster + clusters)
    frontier = max(frontier, tableCluster + clusters)
    release(oldStart..<oldStart + oldClusters)
    try file.flush()
  }

  /// Lets the header name another table. Where that fails it names the old one, or no cluster is handed out any more.
  private func nameTable(
    at hostOffset: UInt64, clusters: UInt64, insteadOf old: (hostOffset: UInt64, clusters: UInt64)
  ) throws(EngineError) {
    // Offset and length stand side by side (bytes 48 to 59), so one write switches to the new table.
    func field(_ hostOffset: UInt64, _ clusters: UInt64) -> [UInt8] {
      var field: [UInt8] = []
      field.append(bigEndian: hostOffset)
      field.append(bigEndian: UInt32(clusters))
      return field
    }
    do throws(EngineError) {
      try file.write(bytes: field(hostOffset, clusters), at: 48)
    } catch {
      do throws(EngineError) { try file.write(bytes: field(old.hostOffset, old.clusters), at: 48) } catch _ {
        failure = error
      }
      throw error
    }
  }
}
