// Tables that overlap with something else.

extension Qcow2Repairer {
  /// Tables of entries that stand in clusters which something else refers to: to change them would change that.
  struct Overlap {
    /// Of the disk.
    var movesL1 = false
    /// Host offsets of the disk's L2 tables, and whether the first L1 entry that names one may keep it.
    var l2Tables: [UInt64: Bool] = [:]
    /// Which of the snapshots' L1 tables.
    var snapshots: [Int] = []

    var isEmpty: Bool { !movesL1 && l2Tables.isEmpty && snapshots.isEmpty }
  }

  /// Nil where every table is on its own.
  func overlappingTables() throws(EngineError) -> Overlap? {
    // Where it is only the refcount structure that shares a cluster, that moves away.
    let structure = checker.structureReferences
    let header = prologue.header
    var result = Overlap()
    if header.l1Count > 0 {
      let count = UInt64(header.l1Count)
      result.movesL1 = !checker.isAlone(tableAt: header.l1Offset, count: count, besides: structure)
      result.l2Tables = try overlappingL2Tables(structure)
    }
    for (index, snapshot) in (checker.snapshots?.entries ?? []).enumerated() {
      let count = UInt64(snapshot.l1Count)
      guard count > 0, count <= Qcow2Header.maximumL1Bytes / 8, snapshot.l1Offset < checker.fileEnd,
        snapshot.l1Offset.isAligned(to: header.geometry.clusterSize),
        (snapshot.l1Offset + count * 8 - 1) >> header.geometry.clusterBits < checker.comparedCount
      else { continue }
      if !checker.isAlone(tableAt: snapshot.l1Offset, count: count, besides: structure) {
        result.snapshots.append(index)
      }
    }
    return result.isEmpty ? nil : result
  }

  private func overlappingL2Tables(_ structure: [UInt64: UInt64]) throws(EngineError) -> [UInt64: Bool] {
    let l1 = try activeL1()
    let repeated = Qcow2Checker.repeatedTables(l1)
    // A hostile L1 table names one table four million times: the copies must not outgrow the file.
    let splits = repeated.values.reduce(0, +) <= checker.comparedCount
    var result: [UInt64: Bool] = [:]
    for index in 0..<UInt64(l1.count) {
      let table = Qcow2L1Entry(l1[index]).tableOffset
      guard table != 0, table < checker.fileEnd, table.isAligned(to: prologue.header.geometry.clusterSize)
      else { continue }
      let isAlone = checker.isAlone(l2TableAt: table, besides: structure)
      if repeated[table] == nil ? !isAlone : splits { result[table] = isAlone }
    }
    return result
  }

  private func activeL1() throws(EngineError) -> ResidentTable {
    let header = prologue.header
    return try ResidentTable(store: file, hostOffset: header.l1Offset, count: Int(header.l1Count))
  }

  /// Gives such tables places of their own. What else refers to the old ones reads there what it did.
  ///
  /// `used`: references to a cluster, all but those of the old refcount structure.
  mutating func move(
    _ overlapping: Overlap, in rewrite: Qcow2Rewrite, used: (UInt64) -> UInt64
  ) throws(EngineError) -> [String] {
    var lines: [String] = []
    // References to the old clusters that remain.
    var left: [UInt64: UInt64] = [:]
    if overlapping.movesL1 || !overlapping.l2Tables.isEmpty {
      lines += try moveActive(overlapping, in: rewrite) { cluster in
        let count = left[cluster] ?? used(cluster)
        left[cluster] = count - min(count, 1)
      }
    }
    for index in overlapping.snapshots {
      guard let snapshot = checker.snapshots?.entries[index] else { continue }
      let bytes = try file.bytes(at: snapshot.l1Offset, count: Int(snapshot.l1Count) * 8)
      for cluster in rewrite.clusters(at: snapshot.l1Offset, byteCount: UInt64(bytes.count)) {
        let count = left[cluster] ?? used(cluster)
        left[cluster] = count - min(count, 1)
      }
      checker.snapshots?.entries[index].l1Offset = try rewrite.allocate(bytes: bytes)
      checker.snapshots?.needsWriting = true
      lines.append(
        "Repairing L1 table of snapshot \(snapshot.record.id): it overlaps with something else; moved")
    }
    // Counts that were cut off at the most that there is room for are cut off still.
    for (cluster, count) in left {
      try rewrite.set(cluster..<cluster + 1, to: min(count, checker.refcounts.maximumCount))
    }
    return lines
  }

  private func moveActive(
    _ overlapping: Overlap, in rewrite: Qcow2Rewrite, released: (UInt64) -> Void
  ) throws(EngineError) -> [String] {
    let geometry = prologue.header.geometry
    let l1 = try activeL1()
    var stays = overlapping.l2Tables
    var lines: [String] = []
    var bytes: [UInt8] = []
    for index in 0..<UInt64(l1.count) {
      var entry = Qcow2L1Entry(l1[index])
      let table = entry.tableOffset
      if let mayStay = stays[table] {
        if mayStay {
          stays[table] = false
        } else {
          let place = try rewrite.allocate(
            bytes: try file.bytes(at: table, count: Int(geometry.clusterSize)))
          released(table >> geometry.clusterBits)
          lines.append("Repairing l2_offset=\(hex(table)): Table overlaps with something else; moved")
          entry = Qcow2L1Entry(entry.raw & ~Qcow2L1Entry.offsetMask | place)
        }
      }
      bytes.append(bigEndian: entry.raw)
    }
    // A table of one entry could change in place; a larger one has to switch as a whole.
    for cluster in rewrite.clusters(at: prologue.header.l1Offset, byteCount: UInt64(bytes.count)) {
      released(cluster)
    }
    rewrite.prologue.header.l1Offset = try rewrite.allocate(bytes: bytes)
    if overlapping.movesL1 { lines.append("Repairing L1 table: it overlaps with something else; moved") }
    return lines
  }
}
