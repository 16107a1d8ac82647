/// A sparse extent: grains that are stored as they are, or packed, or not at all. What is not stored lies below.
///
/// Packed extents, and those whose tables need repair, are only read.
final class VMDKSparseExtent: VMDKExtentMap {
  let geometry: VMDKGrainGeometry
  let file: any ByteStore
  let tables: VMDKGrainTables
  /// Another image lies below: what is not stored does not read as zeros by itself.
  let hasParent: Bool
  /// Where new grains go, and where none may be; nil before the first change.
  var room: Room?
  /// Host offsets of grains that were let go of since the last flush.
  var released: [UInt64] = []

  struct Room {
    var allocator: BlockAllocator
    /// The first place for a new grain, behind all that the file had.
    let firstNew: UInt64
    var metadata: VMDKMetadataMap
    /// What the header has recorded, where it does.
    var freeSector: UInt32
    /// Whether no two grains overlap, so that the room of one is nobody else's; nil until the first one goes.
    var hasGrainsApart: Bool?
  }

  init(
    _ geometry: VMDKGrainGeometry, file: any ByteStore, hasParent: Bool, cacheByteCount: UInt64
  ) throws(EngineError) {
    self.geometry = geometry
    self.file = file
    self.hasParent = hasParent
    tables = try VMDKGrainTables(geometry, file: file, cacheByteCount: cacheByteCount)
  }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let inGrain = geometry.offsetInGrain(offset)
    let tableEnd = (geometry.tableIndex(offset) + 1) << geometry.coverageBits
    let end = min(offset + limit, tableEnd)
    let found = unsafe try tables.withTable(at: offset) { (table) throws(EngineError) in
      guard let table = unsafe table else { return Extent(.below, length: end - offset) }
      return unsafe try run(in: table, at: offset, inGrain, end: end)
    }
    // Where whole tables are missing, their neighbours are asked, too.
    guard found.source == .below, end < offset + limit, found.length == end - offset else { return found }
    return Extent(.below, length: emptyRun(from: end, to: offset + limit) - offset)
  }

  /// The end of a run of tables that are not there, from `start` on.
  private func emptyRun(from start: UInt64, to end: UInt64) -> UInt64 {
    var position = start
    // Bounded, so that a look-up in a huge empty disk holds the lock for a moment only.
    for _ in 0..<4096 {
      guard position < end else { break }
      do throws(EngineError) {
        guard try tables.tableOffset(geometry.tableIndex(position), copy: 0) == nil else { return position }
      } catch {
        // A damaged entry is an error for its own range only.
        return position
      }
      position += 1 << geometry.coverageBits
    }
    return min(position, end)
  }

  /// The run of like grains from `offset` on in one table.
  private func run(
    in table: VMDKGrainTable, at offset: UInt64, _ inGrain: UInt64, end: UInt64
  ) throws(EngineError) -> Extent {
    let first = geometry.entryIndex(offset)
    let entry = unsafe table.entry(first)
    let grainEnd = offset - inGrain + geometry.grainSize
    if geometry.isPacked && entry.isStored {
      try requireGrain(entry, at: offset)
      return Extent(.compressed, length: min(grainEnd, end) - offset, hostOffset: entry.hostOffset)
    }
    if entry.isStored { try requireGrain(entry, at: offset) }
    guard entry != .zeros || geometry.hasZeroedGrains else {
      throw .corrupt("A grain lies in the header of the extent", at: offset)
    }
    let step = entry.isStored ? UInt32(geometry.grainSize / VMDKExtentLine.sectorByteCount) : 0
    var expected = entry.raw
    var index = first
    var position = grainEnd
    while position < end {
      index += 1
      let (next, overflow) = expected.addingReportingOverflow(step)
      guard !overflow, unsafe table.entry(index).raw == next else { break }
      if step > 0 { guard isInFile(VMDKGrainEntry(raw: next)) else { break } }
      expected = next
      position += geometry.grainSize
    }
    let length = min(position, end) - offset
    if entry == .none { return Extent(.below, length: length) }
    if entry == .zeros { return Extent(.zeros, length: length) }
    return Extent(.stored, length: length, hostOffset: entry.hostOffset + inGrain)
  }

  private func requireGrain(_ entry: VMDKGrainEntry, at offset: UInt64) throws(EngineError) {
    do throws(EngineError) {
      try tables.fileEnd.require(entry.hostOffset, 1, "Grain")
    } catch {
      var error = error
      error.offset = offset
      throw error
    }
  }

  private func isInFile(_ entry: VMDKGrainEntry) -> Bool {
    (try? tables.fileEnd.require(entry.hostOffset, 1, "Grain")) != nil
  }
}
