/// What the lock of a qcow2 layer protects.
struct Qcow2State {
  var prologue: Qcow2Prologue
  let order: WriteOrder
  let refcounts: Qcow2Refcounts
  let mapping: Qcow2Mapping
  let allocator: Qcow2Allocator
  let hasDataFile: Bool
  var isPreparedToWrite = false
  /// We set the dirty bit, and are to take it off again.
  var hasMarkedDirty = false
  /// Why nothing may be written any more.
  var failure: EngineError?
  /// What is written, for bitmaps that are enabled; nil before the first write, and where there are none.
  var recorder: Qcow2BitmapRecorder?
  /// Whether it is known if there is something to record for.
  var hasBegunRecording = false
  /// The bitmaps that stand in the file, once they were asked for.
  var bitmapList: Qcow2BitmapDirectory?
  let file: any ByteStore

  init(
    _ prologue: Qcow2Prologue, file: any ByteStore, dataFile: (any ByteStore)?, caches: Qcow2CacheSizes
  ) throws(EngineError) {
    let header = prologue.header
    try header.requireTables(
      insideFileOf: try file.byteCount(), toleratingDamage: prologue.toleratesDamage)
    self.prologue = prologue
    self.file = file
    order = WriteOrder(stores: [file] + (dataFile.map { [$0] } ?? []))
    refcounts = try Qcow2Refcounts(header, file: file, order: order, cacheByteCount: caches.refcounts)
    let l1 = try ResidentTable(store: file, hostOffset: header.l1Offset, count: Int(header.l1Count))
    mapping = try Qcow2Mapping(header, l1: l1, file: file, order: order, cacheByteCount: caches.l2)
    hasDataFile = header.incompatibleFeatures.contains(.externalDataFile)
    allocator = Qcow2Allocator(refcounts, geometry: header.geometry, file: file, order: order)
    order.append(refcounts.blocks)
    order.append(refcounts.table)
    // Qcow2State.firstMappingRank
    order.append(mapping.l2)
    order.append(l1)
  }

  /// The prologue as it stands in the file: the refcount table may have moved since it was read.
  var currentPrologue: Qcow2Prologue {
    var current = prologue
    current.header.refcountTableOffset = refcounts.table.hostOffset
    current.header.refcountTableClusters = UInt32(
      UInt64(refcounts.table.count) * 8 / mapping.geometry.clusterSize)
    return current
  }

  static func clusters(_ offset: UInt64, _ byteCount: UInt64, _ geometry: Qcow2Geometry) -> Range<
    UInt64
  > {
    let first = offset >> geometry.clusterBits
    return first..<first + byteCount.dividedRoundingUp(by: geometry.clusterSize)
  }

  /// Whether the image counts at least a ninth more clusters than its file has room for.
  func hasPreallocatedMetadata() throws(EngineError) -> Bool {
    let clusterSize = mapping.geometry.clusterSize
    let real = try file.allocatedByteCount() / clusterSize
    let threshold = max(real * 10 / 9, real + 2)
    let blockBits = refcounts.blockCoverageBits
    // A file may be long and empty.
    let end = min(
      try file.byteCount().dividedRoundingUp(by: clusterSize), UInt64(refcounts.table.count) << blockBits)
    var (start, counted): (UInt64, UInt64) = (0, 0)
    for _ in 0..<Self.maximumWindows where start < end {
      guard let window = try? refcounts.window(of: start) else {
        start = (start + 1).aligned(upTo: 1 << blockBits)
        continue
      }
      let clusters = window.clusters.clamped(to: start..<end)
      start = window.clusters.upperBound
      if window.slice.isEmpty { continue }
      for index in clusters where window.slice[index - window.clusters.lowerBound] != 0 { counted += 1 }
      if counted >= threshold { return true }
    }
    return false
  }

  /// Windows of counts that are looked at: of 4 KiB, they count a disk of 64 TiB in clusters of 64 KiB. Behind the end of what
  /// any program has made an image may have tables without an end.
  private static let maximumWindows = 1 << 20
}
