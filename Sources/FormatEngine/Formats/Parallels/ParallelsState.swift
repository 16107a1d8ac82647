/// What the lock of a layer protects.
struct ParallelsState {
  var header: ParallelsHeader
  let file: any ByteStore
  let geometry: ParallelsGeometry
  let bat: EntryTable<UInt32>
  let order: WriteOrder
  /// Nil where the image is opened for reading only.
  var used: ParallelsUsedClusters?
  /// Clusters that no entry in memory points to, while one on disk still may.
  var released: [Range<UInt64>] = []
  /// The image says that somebody writes to it, and we said so.
  var isInUse = false
  /// What it says once we are done.
  var closedMark: UInt32 = 0

  init(_ header: ParallelsHeader, file: any ByteStore) {
    self.header = header
    self.file = file
    geometry = header.geometry
    order = WriteOrder(stores: [file], firstRankPoints: true)
    bat = EntryTable(
      in: file, at: ParallelsGeometry.batOffset, count: geometry.entryCount, .littleEndian, writeOrder: order)
  }

  /// What the BAT says of a run of guest bytes. Past its end there is nothing.
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let size = geometry.clusterSize
    let end = offset + limit
    var index = offset / size
    guard let host = try hostOffset(of: index) else {
      index = try endOfEmptyEntries(
        from: index + 1, before: min(geometry.entryCount, end.dividedRoundingUp(by: size)))
      let runEnd = index >= geometry.entryCount ? end : min(end, index * size)
      return Extent(.below, length: runEnd - offset)
    }
    let first = index
    index += 1
    while index * size < end, try hostOffset(of: index) == host + (index - first) * size { index += 1 }
    return Extent(
      .stored, length: min(end, index * size) - offset, hostOffset: host + (offset - first * size))
  }

  /// Where the cluster of `index` is stored, nil where it is not.
  func hostOffset(of index: UInt64) throws(EngineError) -> UInt64? {
    guard index < geometry.entryCount else { return nil }
    let entry = try bat.entry(at: index)
    return entry == 0 ? nil : geometry.hostOffset(of: entry)
  }

  /// The first entry from `start` on that is not 0, at most `end`. Holes of the file are passed over: the BAT of a
  /// disk of many TiB is mostly one.
  private func endOfEmptyEntries(from start: UInt64, before end: UInt64) throws(EngineError) -> UInt64 {
    var index = start
    // No hole begins before this one.
    var checked = start
    while index < end {
      if index >= checked, index % Self.entriesInSlice == 0, !order.isDirty {
        let run = try file.run(at: ParallelsGeometry.batOffset + index * 4, limit: (end - index) * 4)
        if !run.isData && run.length >= 4 {
          index += run.length / 4
          continue
        }
        checked = index + run.length / 4
      }
      guard try bat.entry(at: index) == 0 else { break }
      index += 1
    }
    return max(min(index, end), start)
  }

  /// As many as are read from the file at once.
  private static let entriesInSlice: UInt64 = 1024
}
