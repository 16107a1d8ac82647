extension Qcow2State {
  /// The first change of an image: bits that promise what this writer does not keep are taken off first.
  mutating func prepareToWrite() throws(EngineError) {
    guard !isPreparedToWrite else { return }
    try reserveTables()
    let kept = prologue.header.autoclearFeatures.intersection(.rawExternalData)
    if kept != prologue.header.autoclearFeatures {
      prologue.header.autoclearFeatures = kept
      var field: [UInt8] = []
      field.append(bigEndian: kept.rawValue)
      try file.write(bytes: field, at: 88)
      try file.flush()
    }
    isPreparedToWrite = true
  }

  /// Counts may be wrong, so what holds a table is not free whatever they say.
  private func reserveTables() throws(EngineError) {
    let header = prologue.header
    if let area = encryptionHeader { allocator.reserved.append(area) }
    allocator.reserve(
      tablesAt: (0..<UInt64(mapping.l1.count)).lazy.map { Qcow2L1Entry(mapping.l1[$0]).tableOffset })
    allocator.reserve(
      tablesAt: (0..<UInt64(refcounts.table.count)).lazy.map {
        refcounts.table[$0] & Qcow2Refcounts.blockOffsetMask
      })
    guard header.snapshotCount > 0 else { return }
    let tableByteCount = try Qcow2Snapshot.tableByteCount(header, from: file)
    allocator.reserved.append(Self.clusters(header.snapshotsOffset, tableByteCount, header.geometry))
    for snapshot in try Qcow2Snapshot.readAll(header, from: file) {
      allocator.reserved.append(
        Self.clusters(snapshot.l1Offset, UInt64(snapshot.l1Count) * 8, header.geometry))
    }
  }

  /// The clusters of the LUKS header.
  private var encryptionHeader: Range<UInt64>? {
    guard let content = prologue.extensions[Qcow2HeaderExtensions.Kind.encryption],
      let place = try? content.parsed({ (span) throws(EngineError) in
        (try span.bigEndian(UInt64.self, at: 0), try span.bigEndian(UInt64.self, at: 8))
      }), place.0 <= maximumFileOffset, place.1 <= maximumFileOffset
    else { return nil }
    return Self.clusters(place.0, place.1, prologue.header.geometry)
  }

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
  mutating func setZeros(at offset: UInt64, limit: UInt64, marking: Bool = true) throws(EngineError)
    -> UInt64
  {
    let size = mapping.geometry.clusterSize
    guard offset.isAligned(to: size), canForget else { return 0 }
    // Version 2 has no zero clusters: forgetting makes zeros only where nothing lies below.
    guard prologue.header.version >= 3 || prologue.backing == nil else { return 0 }
    let end = offset + limit
    let wholeEnd = end == prologue.header.virtualSize ? end.aligned(upTo: size) : end.aligned(downTo: size)
    guard wholeEnd > offset else { return 0 }
    return min(try forget(from: offset, to: wholeEnd, marking: marking), limit)
  }

  /// Lets go of whole clusters; they read as zeros then. What lies below a version 2 image would show
  /// through, so there they stay.
  mutating func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let size = mapping.geometry.clusterSize
    let start = offset.aligned(upTo: size)
    guard start == offset else { return min(limit, start - offset) }
    let done = try setZeros(at: offset, limit: limit, marking: false)
    return done > 0 ? done : limit
  }

  /// A raw data file must itself read as the disk does, so its clusters cannot just be forgotten.
  private var canForget: Bool {
    !(hasDataFile && prologue.header.autoclearFeatures.contains(.rawExternalData))
  }

  /// Forgets clusters up to the end of the L2 table of the first, and says how many bytes that was.
  private mutating func forget(from start: UInt64, to end: UInt64, marking: Bool) throws(EngineError)
    -> UInt64
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
      let new = forgotten(old, keepingNothing: keepsNothing)
      if new == old { continue }
      try mapping.setEntry(at: guest, in: table, to: new)
      try release(old, unless: nil)
    }
    if allocator.wantsFlush { try allocator.flush() }
    return stop - start
  }

  private func forgotten(_ old: Qcow2L2Entry, keepingNothing: Bool) -> Qcow2L2Entry {
    let isNothing = !old.isCompressed && old.hostOffset == 0 && !(hasDataFile && old.isCopied)
    if isNothing && keepingNothing { return old }
    if prologue.header.version < 3 { return Qcow2L2Entry(0) }
    return mapping.geometry.hasSubclusters
      ? Qcow2L2Entry(0, bitmap: 0xffff_ffff << 32) : Qcow2L2Entry(Qcow2L2Entry.zeroBit)
  }
}
