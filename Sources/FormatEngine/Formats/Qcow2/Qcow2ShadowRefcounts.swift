/// The refcount structure of an image to come.
///
/// Blocks that do not change are shared with the image as it is; those that do get new places, and so does the
/// table. Nothing that the image refers to until now is written to, and nothing that it counts is handed out.
final class Qcow2ShadowRefcounts {
  private(set) var counts: Qcow2Refcounts
  private let old: Qcow2Refcounts
  private let geometry: Qcow2Geometry
  private let file: any ByteStore
  let metadata: Qcow2MetadataMap
  /// Writes without waiting for the disk: nobody refers to what is written until all of it is there.
  private let order = WriteOrder(stores: [])
  /// Indices of the blocks at new places.
  private var owned: Set<UInt64> = []
  /// Old blocks that the new table no longer refers to.
  private var leftBehind: [UInt64] = []
  /// No cluster below it is free now and then.
  private var candidate: UInt64 = 1
  private var countsAnew = false
  /// While all is counted anew: clusters that hold what is not counted yet.
  private var isTaken: (UInt64) -> Bool = { _ in false }
  private var hasDropped = false
  /// What has no references any more, for letting go of its room.
  private(set) var freed: [Range<UInt64>] = []

  /// Longer lists are not worth their memory: the rest keeps its room on the host until it is used again.
  private static let maximumFreed = 1 << 16

  init(_ old: Qcow2Refcounts, _ geometry: Qcow2Geometry, _ metadata: Qcow2MetadataMap, file: any ByteStore)
    throws(EngineError)
  {
    self.old = old
    self.geometry = geometry
    self.metadata = metadata
    self.file = file
    counts = Qcow2Refcounts(
      clusterBits: old.clusterBits, order: old.order, tableCount: old.table.count, file: file,
      writeOrder: order)
    order.append(counts.blocks)
    for index in 0..<UInt64(old.table.count) { counts.table.set(index, to: old.table[index]) }
  }

  /// Whether anything has another count than before.
  var hasChanged: Bool { countsAnew || hasDropped || !owned.isEmpty }

  /// Forgets all counts, and hands out only what lies past the end of the file from now on, or with `isTaken`
  /// what it says no to.
  func startAnew(order newOrder: UInt64, isTaken: ((UInt64) -> Bool)? = nil) throws(EngineError) {
    counts = Qcow2Refcounts(
      clusterBits: old.clusterBits, order: newOrder, tableCount: 1, file: file, writeOrder: order)
    order.replaceAll(with: counts.blocks)
    owned = []
    leftBehind = []
    freed = []
    countsAnew = true
    self.isTaken = isTaken ?? { _ in false }
    candidate = isTaken == nil ? try file.byteCount().dividedRoundingUp(by: geometry.clusterSize) : 1
  }

  // MARK: Counting

  func set(_ run: Range<UInt64>, to count: UInt64) throws(EngineError) {
    guard count <= counts.maximumCount else {
      throw EngineError(
        .tooLarge, "A cluster would have more references than \(1 << counts.order) bits can count")
    }
    try own(run)
    try counts.set(run, to: count)
  }

  func increment(_ run: Range<UInt64>) throws(EngineError) {
    try own(run)
    try counts.increment(run)
  }

  func decrement(_ run: Range<UInt64>) throws(EngineError) {
    try own(run)
    var isCounted = true
    var cluster = run.lowerBound
    var freedStart = cluster
    try counts.change(run) { count in
      isCounted = isCounted && count > 0
      if count > 1 {
        noteFreed(freedStart..<cluster)
        freedStart = cluster + 1
      }
      cluster += 1
      return count > 0 ? count - 1 : 0
    }
    noteFreed(freedStart..<run.upperBound)
    guard isCounted else {
      throw .corrupt("A cluster of \(run) has more references than are counted; the image needs repair")
    }
  }

  /// Leaves out blocks that count nothing but themselves and others that are left out. False: there are none.
  func dropEmptyBlocks() throws(EngineError) -> Bool {
    var dropped: [UInt64: UInt64] = [:]
    var hasFound = true
    while hasFound {
      hasFound = false
      for index in 0..<UInt64(counts.table.count) where !owned.contains(index) {
        guard let place = try counts.blockOffset(of: index << counts.blockCoverageBits) else { continue }
        let cluster = place >> geometry.clusterBits
        guard dropped[cluster] == nil,
          try isEmpty(index, at: place, but: { $0 == cluster || dropped[$0] != nil })
        else { continue }
        dropped[cluster] = index
        hasFound = true
      }
    }
    let indices = Set(dropped.values)
    for index in indices { counts.table.set(index, to: 0) }
    for cluster in dropped.keys.sorted() {
      // One that a block counted which goes with it has no count any more that could be taken down.
      if indices.contains(cluster >> counts.blockCoverageBits) {
        noteFreed(cluster..<cluster + 1)
      } else {
        leftBehind.append(cluster)
      }
    }
    hasDropped = hasDropped || !dropped.isEmpty
    return !dropped.isEmpty
  }

  /// Whether a block counts no clusters but those that do not matter.
  private func isEmpty(_ index: UInt64, at place: UInt64, but isIgnored: (UInt64) -> Bool) throws(EngineError)
    -> Bool
  {
    let countsInSlice = (UInt64(counts.blocks.sliceByteCount) << 3) >> counts.order
    var cluster = index << counts.blockCoverageBits
    for offset in stride(from: 0, to: geometry.clusterSize, by: counts.blocks.sliceByteCount) {
      let bytes = unsafe UnsafeRawBufferPointer(try counts.blocks.slice(at: place + offset))
      if unsafe !ZeroScan.isZero(bytes) {
        for number in cluster..<cluster + countsInSlice where try counts.count(of: number) != 0 {
          if !isIgnored(number) { return false }
        }
      }
      cluster += countsInSlice
    }
    return true
  }

  private func noteFreed(_ run: Range<UInt64>) {
    guard !run.isEmpty else { return }
    if let last = freed.last, last.upperBound == run.lowerBound {
      freed[freed.count - 1] = last.lowerBound..<run.upperBound
    } else if freed.count < Self.maximumFreed {
      freed.append(run)
    }
  }

  // MARK: Room

  /// Neighbouring clusters that are free before and after the change, now counted once.
  func allocate(clusters: UInt64) throws(EngineError) -> Range<UInt64> {
    var run: Range<UInt64> = 0..<0
    while UInt64(run.count) < clusters {
      let cluster = try nextFree()
      run = cluster == run.upperBound && !run.isEmpty ? run.lowerBound..<cluster + 1 : cluster..<cluster + 1
    }
    try set(run, to: 1)
    return run
  }

  private func nextFree() throws(EngineError) -> UInt64 {
    while true {
      if !countsAnew { candidate = try old.firstFree(from: candidate) }
      let cluster = candidate
      candidate += 1
      guard !isTaken(cluster), try counts.count(of: cluster) == 0 else { continue }
      try metadata.requireNone(in: cluster..<cluster + 1, geometry)
      return cluster
    }
  }

  /// Gives the blocks that count a run places of their own.
  private func own(_ run: Range<UInt64>) throws(EngineError) {
    guard let last = run.last else { return }
    for index in run.lowerBound >> counts.blockCoverageBits...last >> counts.blockCoverageBits
    where !owned.contains(index) {
      try own(block: index)
    }
  }

  private func own(block index: UInt64) throws(EngineError) {
    // A host offset out of a damaged table could ask for exabytes of counts.
    guard index < Qcow2Header.maximumRefcountTableBytes / 8 else {
      throw EngineError(.tooLarge, "The image file would need too large a refcount table")
    }
    owned.insert(index)
    let oldPlace = try counts.blockOffset(of: index << counts.blockCoverageBits)
    let cluster = try nextFree()
    let place = cluster << geometry.clusterBits
    try copyBlock(from: oldPlace, to: place)
    if index >= UInt64(counts.table.count) {
      counts.table.relocate(to: 0, count: Int(index) + 1)
    }
    counts.table.set(index, to: place)
    if let oldPlace { leftBehind.append(oldPlace >> geometry.clusterBits) }
    try set(cluster..<cluster + 1, to: 1)
  }

  private func copyBlock(from old: UInt64?, to new: UInt64) throws(EngineError) {
    let size = counts.blocks.sliceByteCount
    let copy = AlignedBuffer(byteCount: size)
    for offset in stride(from: 0, to: geometry.clusterSize, by: size) {
      if let old { unsafe try file.read(into: copy.bytes, at: old + offset) }
      let slice = unsafe try counts.blocks.freshSlice(at: new + offset)
      if old != nil { unsafe slice.copyMemory(from: UnsafeRawBufferPointer(copy.bytes)) }
    }
  }

  // MARK: Finishing

  /// Writes the table and the blocks; returns the clusters of the table.
  func write() throws(EngineError) -> Range<UInt64> {
    if !countsAnew {
      let size = geometry.clusterSize
      let first = old.table.hostOffset >> geometry.clusterBits
      leftBehind.append(contentsOf: first..<first + UInt64(old.table.count) * 8 / size)
    }
    var place: Range<UInt64> = 0..<0
    while true {
      // Each of these steps may give another block a new place, and so make the next one necessary.
      while let cluster = leftBehind.popLast() { try decrement(cluster..<cluster + 1) }
      let wanted = max(1, (UInt64(counts.table.count) * 8).dividedRoundingUp(by: geometry.clusterSize))
      if UInt64(place.count) < wanted {
        try set(place, to: 0)
        place = try allocate(clusters: wanted)
      } else if leftBehind.isEmpty {
        break
      }
    }
    guard UInt64(place.count) * geometry.clusterSize <= Qcow2Header.maximumRefcountTableBytes else {
      throw EngineError(.tooLarge, "The image file would need too large a refcount table")
    }
    counts.table.relocate(
      to: place.lowerBound << geometry.clusterBits,
      count: Int(UInt64(place.count) * geometry.clusterSize / 8))
    try counts.blocks.writeBack()
    try counts.table.writeBack()
    return place
  }
}
