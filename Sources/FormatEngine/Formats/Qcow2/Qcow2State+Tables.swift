extension Qcow2State {
  /// Host offset of an L2 table that may be changed: made where there is none, copied where a snapshot
  /// uses it too.
  mutating func writableTable(_ l1Index: UInt64) throws(EngineError) -> UInt64 {
    let entry = Qcow2L1Entry(mapping.l1[l1Index])
    let old = try mapping.tableOffset(l1Index)
    if let old, entry.isCopied { return old }
    guard l1Index < UInt64(mapping.l1.count) else { throw .corrupt("L1 table is too small") }
    let cluster = try allocator.allocate(atMost: 1).lowerBound
    let table = cluster << mapping.geometry.clusterBits
    mapping.noteFileReaches(table + mapping.geometry.clusterSize)
    try fillTable(at: table, from: old)
    mapping.l1.set(l1Index, to: table | Qcow2L1Entry.copiedBit)
    if let old {
      let oldCluster = old >> mapping.geometry.clusterBits
      allocator.release(oldCluster..<oldCluster + 1)
    }
    return table
  }

  private func fillTable(at table: UInt64, from old: UInt64?) throws(EngineError) {
    let size = mapping.l2.sliceByteCount
    let copy = AlignedBuffer(byteCount: size)
    for offset in stride(from: 0, to: mapping.geometry.clusterSize, by: size) {
      // Two slices cannot be held at once: the second may take the first one's place.
      if let old {
        unsafe copy.bytes.copyMemory(from: UnsafeRawBufferPointer(try mapping.l2.slice(at: old + offset)))
      }
      let slice = unsafe try mapping.l2.freshSlice(at: table + offset)
      if old != nil { unsafe slice.copyMemory(from: UnsafeRawBufferPointer(copy.bytes)) }
    }
  }

  /// Makes whole clusters read as zeros; 0 where that needs zeros to be written.
  ///
  /// `marking`: also what reads as zeros only because nothing is there gets its mark.
  /// `keepingRoom`: clusters of the disk's own keep theirs, for being written to again.
  mutating func setZeros(at offset: UInt64, limit: UInt64, marking: Bool = true, keepingRoom: Bool = false)
    throws(EngineError) -> UInt64
  {
    let size = mapping.geometry.clusterSize
    guard offset.isAligned(to: size) else { return 0 }
    // Version 2 has no zero clusters: forgetting makes zeros only where nothing lies below.
    guard prologue.header.version >= 3 || prologue.backing == nil else { return 0 }
    let end = offset + limit
    let wholeEnd = end == prologue.header.virtualSize ? end.aligned(upTo: size) : end.aligned(downTo: size)
    guard wholeEnd > offset else { return 0 }
    return min(
      try forget(from: offset, to: wholeEnd, marking: marking, keepingRoom: keepingRoom), limit)
  }

  /// Lets go of whole clusters; they read as zeros then. What lies below a version 2 image would show
  /// through, so there they stay. Says whether the clusters were let go of, and how many bytes it is done with.
  mutating func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> (Bool, UInt64) {
    let size = mapping.geometry.clusterSize
    let start = offset.aligned(upTo: size)
    guard start == offset else { return (false, min(limit, start - offset)) }
    let done = try setZeros(at: offset, limit: limit, marking: false)
    return done > 0 ? (true, done) : (false, limit)
  }

  /// Forgets clusters up to the end of the L2 table of the first, and says how many bytes that was.
  private mutating func forget(from start: UInt64, to end: UInt64, marking: Bool, keepingRoom: Bool)
    throws(EngineError) -> UInt64
  {
    let geometry = mapping.geometry
    let l1Index = geometry.l1Index(start)
    let stop = min(end, (l1Index + 1) << geometry.l2CoverageBits)
    let oldTable = try mapping.tableOffset(l1Index)
    let keepsNothing = prologue.backing == nil && !(marking && prologue.header.version >= 3)
    if oldTable == nil && keepsNothing { return stop - start }
    let table = try writableTable(l1Index)
    for guest in stride(from: start, to: stop, by: Int(geometry.clusterSize)) {
      let old = try mapping.entry(at: guest, in: table)
      let new = keepingRoom && keepsItsRoom(old) ? zeroed(old) : forgotten(old, keepingNothing: keepsNothing)
      if new == old { continue }
      let isLetGoOf = new.hostOffset == 0 || old.isCompressed
      if isLetGoOf { try requireReleasable(old, unless: nil) }
      try mapping.setEntry(at: guest, in: table, to: new)
      if isLetGoOf { release(old, unless: nil) }
    }
    if allocator.wantsFlush { try flush() }
    return stop - start
  }

  private func keepsItsRoom(_ entry: Qcow2L2Entry) -> Bool {
    prologue.header.version >= 3 && !entry.isCompressed && entry.isCopied
      && (entry.hostOffset != 0 || hasDataFile)
  }

  /// The same room, reading as zeros.
  private func zeroed(_ old: Qcow2L2Entry) -> Qcow2L2Entry {
    mapping.geometry.hasSubclusters
      ? Qcow2L2Entry(old.raw, bitmap: 0xffff_ffff << 32)
      : Qcow2L2Entry(old.raw | Qcow2L2Entry.zeroBit)
  }

  private func forgotten(_ old: Qcow2L2Entry, keepingNothing: Bool) -> Qcow2L2Entry {
    let isNothing = !old.isCompressed && old.hostOffset == 0 && !(hasDataFile && old.isCopied)
    if isNothing && keepingNothing { return old }
    if prologue.header.version < 3 { return Qcow2L2Entry(0) }
    return mapping.geometry.hasSubclusters
      ? Qcow2L2Entry(0, bitmap: 0xffff_ffff << 32) : Qcow2L2Entry(Qcow2L2Entry.zeroBit)
  }
}
