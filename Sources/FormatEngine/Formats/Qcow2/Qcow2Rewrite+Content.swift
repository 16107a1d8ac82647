extension Qcow2Rewrite {
  /// Lets go of all that the disk stores from `start` on, which is a multiple of the cluster size, and makes the
  /// L1 table `l1Count` entries long. Snapshots keep what they share with the disk.
  func removeContent(from start: UInt64, l1Count: UInt64, progress: Progress) throws(EngineError) {
    let header = prologue.header
    var l1 = try words(at: header.l1Offset, count: Int(header.l1Count))
    let old = l1
    let fileEnd = try file.byteCount().aligned(upTo: geometry.clusterSize)
    var removal = Qcow2ContentRemoval(self, fileEnd: fileEnd)
    for index in geometry.l1Index(start)..<max(UInt64(l1.count), geometry.l1Index(start)) {
      try progress.step(index, of: UInt64(l1.count))
      let first = index == geometry.l1Index(start) ? geometry.l2Index(start) : 0
      let entry = Qcow2L1Entry(l1[Int(index)])
      guard entry.tableOffset != 0 else { continue }
      l1[Int(index)] = try removal.removeEntries(of: entry, from: first)
    }
    try removal.finish()
    if l1Count < UInt64(l1.count) { l1.removeLast(l1.count - Int(l1Count)) }
    if l1 != old { try replaceL1(with: l1) }
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
  private let fileEnd: UInt64
  private let hasDataFile: Bool
  private var run: Range<UInt64> = 0..<0

  init(_ rewrite: Qcow2Rewrite, fileEnd: UInt64) {
    self.rewrite = rewrite
    self.fileEnd = fileEnd
    hasDataFile = rewrite.prologue.header.incompatibleFeatures.contains(.externalDataFile)
  }

  /// The L1 entry that takes the place of `entry` when its table's entries from `first` on are gone.
  mutating func removeEntries(of entry: Qcow2L1Entry, from first: UInt64) throws(EngineError) -> UInt64 {
    let geometry = rewrite.geometry
    let tableOffset = entry.tableOffset
    guard tableOffset.isAligned(to: geometry.clusterSize), tableOffset < fileEnd else {
      throw .corrupt("L2 table offset 0x\(hex(tableOffset)) is not in the image file", at: tableOffset)
    }
    let wordsInEntry = Int(geometry.entryByteCount / 8)
    var words = try rewrite.words(at: tableOffset, count: Int(geometry.clusterSize / 8))
    var hasChanged = false
    for index in stride(from: Int(first) * wordsInEntry, to: words.count, by: wordsInEntry) {
      let old = Qcow2L2Entry(words[index], bitmap: wordsInEntry == 2 ? words[index + 1] : 0)
      guard old.raw != 0 || old.bitmap != 0 else { continue }
      hasChanged = true
      if !hasDataFile { try removeReference(of: old) }
      for word in index..<index + wordsInEntry { words[word] = 0 }
    }
    let table = rewrite.clusters(at: tableOffset, byteCount: geometry.clusterSize)
    if first == 0 {
      try finish()
      try rewrite.remove(table)
      return 0
    }
    guard hasChanged else { return entry.raw }
    try finish()
    try rewrite.remove(table)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(words.count * 8)
    for word in words { bytes.append(bigEndian: word) }
    return try rewrite.allocate(bytes: bytes) | Qcow2L1Entry.copiedBit
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
