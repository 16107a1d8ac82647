extension Qcow2Rewrite {
  /// Lets go of all that the disk stores. Snapshots keep what they share with it.
  func removeContent(progress: Progress) throws(EngineError) {
    let header = prologue.header
    let l1 = try words(at: header.l1Offset, count: Int(header.l1Count))
    var removal = try Qcow2ContentRemoval(self)
    for (index, raw) in l1.enumerated() {
      try progress.step(UInt64(index), of: UInt64(l1.count))
      let entry = Qcow2L1Entry(raw)
      if entry.tableOffset != 0 { try removal.remove(tableAt: entry.tableOffset) }
    }
    try removal.finish()
    if l1.contains(where: { $0 != 0 }) { try replaceL1(with: [UInt64](repeating: 0, count: l1.count)) }
  }

  /// Writes a new L1 table and lets go of the old one.
  func replaceL1(with entries: [UInt64]) throws(EngineError) {
    let header = prologue.header
    if header.l1Count > 0 {
      try remove(clusters(at: header.l1Offset, byteCount: UInt64(header.l1Count) * 8))
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.count * 8)
    for entry in entries { bytes.append(bigEndian: entry) }
    prologue.header.l1Offset = entries.isEmpty ? 0 : try allocate(bytes: bytes)
    prologue.header.l1Count = UInt32(entries.count)
  }

  /// Entries of a table as it stands in the file.
  func words(at hostOffset: UInt64, count: Int) throws(EngineError) -> [UInt64] {
    let bytes = try file.bytes(at: hostOffset, count: count * 8)
    return try bytes.parsed { (span) throws(EngineError) in
      var words: [UInt64] = []
      words.reserveCapacity(count)
      for index in 0..<count { words.append(try span.bigEndian(UInt64.self, at: index * 8)) }
      return words
    }
  }
}

/// Takes the references away that L2 tables hold. Neighbouring clusters go together.
private struct Qcow2ContentRemoval {
  private let rewrite: Qcow2Rewrite
  /// No cluster starts at or past it.
  private let fileEnd: UInt64
  private let hasDataFile: Bool
  private var run: Range<UInt64> = 0..<0

  init(_ rewrite: Qcow2Rewrite) throws(EngineError) {
    self.rewrite = rewrite
    fileEnd = try rewrite.file.byteCount().aligned(upTo: rewrite.geometry.clusterSize)
    hasDataFile = rewrite.prologue.header.incompatibleFeatures.contains(.externalDataFile)
  }

  mutating func remove(tableAt tableOffset: UInt64) throws(EngineError) {
    let geometry = rewrite.geometry
    guard tableOffset.isAligned(to: geometry.clusterSize), tableOffset < fileEnd else {
      throw .corrupt("L2 table offset 0x\(hex(tableOffset)) is not in the image file", at: tableOffset)
    }
    if !hasDataFile {
      let words = try rewrite.words(at: tableOffset, count: Int(geometry.clusterSize / 8))
      for index in stride(from: 0, to: words.count, by: Int(geometry.entryByteCount / 8))
      where words[index] != 0 {
        try removeReference(of: Qcow2L2Entry(words[index]))
      }
    }
    try finish()
    try rewrite.remove(rewrite.clusters(at: tableOffset, byteCount: geometry.clusterSize))
  }

  private mutating func removeReference(of entry: Qcow2L2Entry) throws(EngineError) {
    let geometry = rewrite.geometry
    var clusters: Range<UInt64>
    if entry.isCompressed {
      let packed = entry.packed(geometry)
      let last = packed.hostOffset + packed.byteCount - 1
      clusters = packed.hostOffset >> geometry.clusterBits..<(last >> geometry.clusterBits) + 1
    } else {
      guard entry.hostOffset != 0 else { return }
      guard entry.hostOffset.isAligned(to: geometry.clusterSize) else {
        throw .corrupt("Cluster allocation offset 0x\(hex(entry.hostOffset)) unaligned")
      }
      clusters = rewrite.clusters(at: entry.hostOffset, byteCount: geometry.clusterSize)
    }
    guard clusters.lowerBound << geometry.clusterBits < fileEnd else {
      throw .corrupt("A cluster at 0x\(hex(entry.hostOffset)) lies past the end of the image file")
    }
    if clusters.lowerBound == run.upperBound {
      run = run.lowerBound..<clusters.upperBound
    } else {
      try finish()
      run = clusters
    }
  }

  /// Takes away what waits for neighbours.
  mutating func finish() throws(EngineError) {
    if !run.isEmpty { try rewrite.remove(run) }
    run = 0..<0
  }
}
