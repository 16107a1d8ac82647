// From the first change of an image to its closing.

extension Qcow2State {
  /// L2 tables are the first that guest bytes are found by; counts come before.
  private static let firstMappingRank = 2

  /// Counts may stay behind, because the image says of itself that it is in use.
  private var isLazy: Bool { hasMarkedDirty }

  /// The first change of an image: its tables must not overlap, bits that promise what this writer does not keep
  /// are taken off, and with lazy refcounts the image is marked as being in use.
  mutating func prepareToWrite() throws(EngineError) {
    if let failure = failure ?? allocator.failure { throw failure }
    guard !isPreparedToWrite else { return }
    do throws(EngineError) {
      allocator.metadata = try metadataMap()
    } catch {
      noteFailure(error)
      throw error
    }
    var header = prologue.header
    header.autoclearFeatures.formIntersection([.rawExternalData, .bitmaps])
    if prologue.extensions[Qcow2HeaderExtensions.Kind.bitmaps] == nil {
      header.autoclearFeatures.remove(.bitmaps)
    }
    if header.compatibleFeatures.contains(.lazyRefcounts) {
      header.incompatibleFeatures.insert(.dirty)
      // Said first: where the write fails, the mark may stand in the file all the same.
      hasMarkedDirty = true
    }
    // Known here only once it is in the file: after a failure the next change tries again.
    if header != prologue.header { try header.writeFeatures(to: file) }
    prologue.header = header
    isPreparedToWrite = true
  }

  /// Damage that was met while writing: the image says so from now on, and is not written to any more.
  mutating func noteFailure(_ error: EngineError) {
    guard error.code == .corrupt, failure == nil else { return }
    var failure = error.whileTrying("The image is corrupt and cannot be written to any more")
    failure.offset = nil
    self.failure = failure
    prologue.header.incompatibleFeatures.insert(.corrupt)
    // Where even that cannot be written, the error that led here is the news.
    try? prologue.header.writeFeatures(to: file)
  }

  /// All that was linked is on disk.
  mutating func flush() throws(EngineError) {
    try allocator.flush(fromRank: isLazy ? Self.firstMappingRank : 0)
  }

  /// All is on disk, and the image is no longer in use.
  mutating func close() throws(EngineError) {
    try completeLastCluster()
    try allocator.flush()
    guard hasMarkedDirty, failure == nil else { return }
    // Counts that were taken down by the flush itself are not on disk yet.
    try order.flush()
    prologue.header.incompatibleFeatures.remove(.dirty)
    // Whether or not the mark goes: who writes on sets it again.
    isPreparedToWrite = false
    try prologue.header.writeFeatures(to: file)
    hasMarkedDirty = false
  }

  /// A last cluster that was written in part ends with the file. We read zeros beyond; other readers fail.
  private func completeLastCluster() throws(EngineError) {
    guard isPreparedToWrite else { return }
    let end = try file.byteCount()
    let whole = end.aligned(upTo: mapping.geometry.clusterSize)
    // A device cannot grow, and need not.
    if end < whole, !file.isDevice { try file.resize(to: whole) }
  }

  private func metadataMap() throws(EngineError) -> Qcow2MetadataMap {
    let header = currentPrologue.header
    let geometry = header.geometry
    var map = Qcow2MetadataMap()
    map.add(0..<1, .header)
    map.add(Self.clusters(header.l1Offset, UInt64(header.l1Count) * 8, geometry), .activeL1)
    map.add(
      Self.clusters(
        header.refcountTableOffset, UInt64(header.refcountTableClusters) * geometry.clusterSize, geometry),
      .refcountTable)
    for index in 0..<UInt64(mapping.l1.count) {
      map.add(clusterAt: Qcow2L1Entry(mapping.l1[index]).tableOffset, .activeL2, geometry)
    }
    for index in 0..<UInt64(refcounts.table.count) {
      let block = refcounts.table[index] & Qcow2Refcounts.blockOffsetMask
      map.add(clusterAt: block, .refcountBlock, geometry)
    }
    if header.snapshotCount > 0 {
      let table = try Qcow2Snapshot.readTable(header, from: file, keeping: .shown)
      map.add(Self.clusters(header.snapshotsOffset, table.byteCount, geometry), .snapshotTable)
      for snapshot in table.snapshots {
        try header.validateTable(
          "Snapshot L1 table", offset: snapshot.l1Offset, count: UInt64(snapshot.l1Count), entryByteCount: 8,
          maximumBytes: Qcow2Header.maximumL1Bytes)
        map.add(Self.clusters(snapshot.l1Offset, UInt64(snapshot.l1Count) * 8, geometry), .snapshotL1)
      }
    }
    if let area = prologue.extensions.encryptionHeader, area.offset <= maximumFileOffset,
      area.byteCount <= maximumFileOffset
    {
      map.add(Self.clusters(area.offset, area.byteCount, geometry), .other)
    }
    // A list that cannot be read stands in the way of writes, not of a repair.
    if let list = try Qcow2BitmapDirectory.readIfSound(prologue, from: file) {
      map.add(Self.clusters(list.place.lowerBound, UInt64(list.place.count), geometry), .bitmapDirectory)
      for bitmap in list.bitmaps {
        map.add(Self.clusters(bitmap.tableOffset, UInt64(bitmap.tableCount) * 8, geometry), .bitmapTable)
      }
    }
    try map.finish(geometry)
    return map
  }
}
