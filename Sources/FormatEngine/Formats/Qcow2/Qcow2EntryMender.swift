/// Sets L1 and L2 entries right that cannot be true, where that takes nothing away that could be read.
///
/// Entries are written in place, each in one sector: a power cut leaves some mended and some not. Tables that
/// share their clusters with something else are left alone: their bytes may be a guest's. What stays is for the
/// check to tell: an entry with an odd host offset, whose data may still be somewhere, is not thrown away.
struct Qcow2EntryMender {
  /// After `findReferences`.
  private let checker: Qcow2Checker
  private let geometry: Qcow2Geometry
  private let file: any ByteStore
  private let canForget: Bool
  private let buffer: AlignedBuffer
  /// What was done, one sentence each.
  private(set) var lines: [String] = []
  private(set) var mendedCount: UInt64 = 0
  private static let maximumLines = 100_000
  /// All 32 subclusters read as zeros.
  private static let allZeros: UInt64 = 0xffff_ffff << 32

  init(_ checker: Qcow2Checker, hasBacking: Bool) {
    self.checker = checker
    geometry = checker.geometry
    file = checker.file
    // Version 2 has no zero clusters, and what lies below must not show through.
    canForget = checker.header.version >= 3 || !hasBacking
    buffer = AlignedBuffer(byteCount: Int(checker.geometry.clusterSize))
  }

  mutating func run() throws(EngineError) {
    let header = checker.header
    try mend(l1At: header.l1Offset, count: UInt64(header.l1Count))
    for snapshot in checker.snapshots?.entries ?? []
    where snapshot.l1Offset.isAligned(to: geometry.clusterSize)
      && UInt64(snapshot.l1Count) <= Qcow2Header.maximumL1Bytes / 8
    {
      try mend(l1At: snapshot.l1Offset, count: UInt64(snapshot.l1Count))
    }
    if mendedCount > 0 { try file.flush() }
  }

  private mutating func note(_ words: @autoclosure () -> String) {
    mendedCount += 1
    if lines.count < Self.maximumLines { lines.append("Repairing \(words())") }
  }

  private mutating func mend(l1At l1Offset: UInt64, count: UInt64) throws(EngineError) {
    guard l1Offset < checker.fileEnd else { return }
    let count = min(count, (checker.fileEnd - l1Offset).dividedRoundingUp(by: 8))
    guard count > 0 else { return }
    let l1 = try ResidentTable(store: file, hostOffset: l1Offset, count: Int(count))
    let isAlone = checker.isAlone(tableAt: l1Offset, count: count)
    var repeated = Qcow2Checker.repeatedTables(l1)
    for index in 0..<count where l1[index] != 0 {
      let entry = mended(Qcow2L1Entry(l1[index]), isAlone: isAlone)
      if entry.raw != l1[index] { try file.write(bigEndian: entry.raw, at: l1Offset + index * 8) }
      let table = entry.tableOffset
      guard table != 0, checker.isAlone(l2TableAt: table), table.isAligned(to: geometry.clusterSize) else {
        continue
      }
      if repeated[table] == 0 { continue }
      if repeated[table] != nil { repeated[table] = 0 }
      try mend(l2At: table)
    }
  }

  private mutating func mended(_ entry: Qcow2L1Entry, isAlone: Bool) -> Qcow2L1Entry {
    guard isAlone else { return entry }
    var result = entry
    if entry.raw & Qcow2L1Entry.reservedMask != 0 {
      note("L1 entry with reserved bits set: \(hex(entry.raw))")
      result.raw &= ~Qcow2L1Entry.reservedMask
    }
    if entry.tableOffset == 0, entry.isCopied {
      note("L1 entry without a table has its copied flag set: \(hex(entry.raw))")
      result.raw = 0
    }
    if isOutside(entry.tableOffset) {
      note("l2_offset=\(hex(entry.tableOffset)): Table lies past the end of the image file; L1 entry removed")
      result.raw = 0
    }
    return result
  }

  /// Whether a cluster begins past the end of the file.
  private func isOutside(_ offset: UInt64) -> Bool { offset != 0 && offset >= checker.fileEnd }

  private mutating func mend(l2At table: UInt64) throws(EngineError) {
    unsafe try file.read(into: buffer.bytes, at: table)
    var changed = Qcow2ChangedEntries(geometry)
    for index in 0..<geometry.l2Count {
      let old = unsafe Qcow2L2Entry.load(index, from: buffer.bytes, geometry)
      guard old.raw != 0 || old.bitmap != 0 else { continue }
      let new = old.isCompressed ? mendedCompressed(old) : mendedStandard(old)
      guard new != old else { continue }
      unsafe new.store(at: index, in: buffer.bytes, geometry)
      changed.note(index)
    }
    unsafe try changed.write(buffer.bytes, toTableAt: table, in: file)
  }

  private mutating func mendedCompressed(_ entry: Qcow2L2Entry) -> Qcow2L2Entry {
    guard !checker.hasDataFile else { return entry }
    let packed = entry.packed(geometry)
    var result = entry
    if entry.isCopied {
      note("coffset=0x\(hex(packed.hostOffset)): copied flag must never be set for compressed clusters")
      result.raw &= ~Qcow2L2Entry.copiedBit
    }
    if isOutside(packed.hostOffset), canForget {
      note(
        "coffset=0x\(hex(packed.hostOffset)): Cluster lies past the end of the image file; it reads as zeros now"
      )
      return geometry.hasSubclusters
        ? Qcow2L2Entry(0, bitmap: Self.allZeros)
        : Qcow2L2Entry(checker.header.version >= 3 ? Qcow2L2Entry.zeroBit : 0)
    }
    let end = checker.fileEnd.aligned(upTo: geometry.clusterSize)
    if packed.hostOffset < end, packed.byteCount > end - packed.hostOffset,
      let shorter = Qcow2L2Entry.compressed(
        at: packed.hostOffset, byteCount: end - packed.hostOffset, geometry)
    {
      // The length is an upper bound: what lies past the end is not needed for what can be unpacked.
      note("coffset=0x\(hex(packed.hostOffset)): Compressed cluster reaches past the end of the image file")
      return Qcow2L2Entry(shorter.raw, bitmap: entry.bitmap)
    }
    return result
  }

  private mutating func mendedStandard(_ entry: Qcow2L2Entry) -> Qcow2L2Entry {
    var result = entry
    if entry.raw & Qcow2L2Entry.reservedMask != 0 {
      note("l2 entry with reserved bits set: \(hex(entry.raw))")
      result.raw &= ~Qcow2L2Entry.reservedMask
    }
    guard entry.hostOffset != 0 || (checker.hasDataFile && entry.isCopied) else {
      if entry.storedSubclusters != 0 {
        note("Unallocated cluster has non-zero subcluster allocation map")
        result.bitmap = emptied(entry)
      }
      return result
    }
    let conflict = entry.storedSubclusters & entry.zeroSubclusters
    if conflict != 0 {
      // The bytes are there; whether they or zeros are meant, nobody can tell.
      note(
        "offset=\(hex(entry.hostOffset)): Allocated cluster has corrupted subcluster allocation bitmap")
      result.bitmap &= ~(conflict << 32)
    }
    if !checker.hasDataFile, isOutside(entry.hostOffset), canForget {
      note(
        "offset=\(hex(entry.hostOffset)): Cluster lies past the end of the image file; it reads as zeros now")
      return forgotten(result)
    }
    let holdsNothing =
      geometry.hasSubclusters
      ? entry.storedSubclusters == 0 : entry.isZero && checker.header.version >= 3
    if !entry.hostOffset.isAligned(to: geometry.clusterSize) {
      // With data behind it, the place cannot be told, and is not thrown away either.
      guard holdsNothing, canForget else { return result }
      note(
        "offset=\(hex(entry.hostOffset)): Preallocated cluster is not properly aligned; L2 entry corrupted.")
      return forgotten(result)
    }
    return result
  }

  /// The same guest cluster without room in the file: what was stored reads as zeros.
  private func forgotten(_ entry: Qcow2L2Entry) -> Qcow2L2Entry {
    if geometry.hasSubclusters { return Qcow2L2Entry(0, bitmap: emptied(entry)) }
    return Qcow2L2Entry(checker.header.version >= 3 ? Qcow2L2Entry.zeroBit : 0)
  }

  /// The bitmap with zeros for what is marked as stored.
  private func emptied(_ entry: Qcow2L2Entry) -> UInt64 {
    (entry.zeroSubclusters | entry.storedSubclusters) << 32
  }
}
