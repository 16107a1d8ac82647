/// The copied flag of every active entry says whether the counted references are exactly one.
extension Qcow2Checker {
  /// `mending`: wrong flags are set right, in tables that nothing else overlaps.
  mutating func checkCopiedFlags(mending: Bool = false) throws(EngineError) {
    let l1 = try ResidentTable(store: file, hostOffset: header.l1Offset, count: Int(header.l1Count))
    let mendsL1 = mending && isAlone(tableAt: header.l1Offset, count: UInt64(header.l1Count))
    let buffer = AlignedBuffer(byteCount: Int(geometry.clusterSize))
    var stored = Qcow2RefcountReader(refcounts)
    var repeated = Self.repeatedTables(l1)
    for index in 0..<UInt64(l1.count) {
      let entry = Qcow2L1Entry(l1[index])
      guard entry.tableOffset != 0 else { continue }
      if let count = stored.count(of: entry.tableOffset >> geometry.clusterBits),
        (count == 1) != entry.isCopied
      {
        let words = "OFLAG_COPIED L2 cluster: l1_index=\(index) l1_entry=\(hex(entry.raw)) refcount=\(count)"
        if mendsL1 {
          try file.write(
            bigEndian: entry.raw ^ Qcow2L1Entry.copiedBit, at: header.l1Offset + index * 8)
          noteMended("Repairing \(words)")
        } else {
          corruption("ERROR \(words)")
        }
      }
      guard entry.tableOffset.isAligned(to: geometry.clusterSize), entry.tableOffset < fileEnd else {
        continue
      }
      var weight: UInt64 = 1
      if let times = repeated[entry.tableOffset] {
        guard times > 0 else { continue }
        weight = times
        repeated[entry.tableOffset] = 0
      }
      let mends = mending && isAlone(l2TableAt: entry.tableOffset)
      try checkCopiedFlags(inTableAt: entry.tableOffset, buffer, &stored, mending: mends, weight: weight)
    }
  }

  private mutating func checkCopiedFlags(
    inTableAt table: UInt64, _ buffer: AlignedBuffer, _ stored: inout Qcow2RefcountReader, mending: Bool,
    weight: UInt64
  ) throws(EngineError) {
    unsafe try file.read(into: buffer.bytes, at: table)
    var changed = Qcow2ChangedEntries(geometry)
    for index in 0..<geometry.l2Count {
      var entry = unsafe Qcow2L2Entry.load(index, from: buffer.bytes, geometry)
      guard entry.raw != 0, !entry.isCompressed else { continue }
      guard entry.hostOffset != 0 || (hasDataFile && entry.isCopied) else { continue }
      // A data file has no counts: each of its clusters has its one place.
      guard let count = hasDataFile ? 1 : stored.count(of: entry.hostOffset >> geometry.clusterBits),
        (count == 1) != entry.isCopied
      else { continue }
      let words = "OFLAG_COPIED data cluster: l2_entry=\(hex(entry.raw)) refcount=\(count)"
      if mending {
        entry.raw ^= Qcow2L2Entry.copiedBit
        unsafe entry.store(at: index, in: buffer.bytes, geometry)
        changed.note(index)
        noteMended("Repairing \(words)")
      } else {
        corruption("ERROR \(words)", weight: weight)
      }
    }
    unsafe try changed.write(buffer.bytes, toTableAt: table, in: file)
  }

  mutating func noteMended(_ words: @autoclosure () -> String) {
    report.corruptionsFixed += 1
    finding(words())
  }

  // MARK: What may be written in place

  /// Whether a table of L1 entries shares no cluster with anything else.
  ///
  /// `structure`: references that do not matter, by clusters.
  func isAlone(tableAt offset: UInt64, count: UInt64, besides structure: [UInt64: UInt64] = [:]) -> Bool {
    guard count > 0, offset < fileEnd else { return false }
    let last = (offset + count * 8 - 1) >> geometry.clusterBits
    return last < comparedCount
      && (offset >> geometry.clusterBits...last).allSatisfy {
        counts[$0] == 1 + (structure[$0] ?? 0)
      }
  }

  /// Whether all references to an L2 table are those of L1 entries: only then are its bytes entries and
  /// nothing else.
  func isAlone(l2TableAt offset: UInt64, besides structure: [UInt64: UInt64] = [:]) -> Bool {
    let cluster = offset >> geometry.clusterBits
    guard let tableVisits, cluster < comparedCount else { return false }
    return tableVisits[cluster] > 0 && counts[cluster] == tableVisits[cluster] + (structure[cluster] ?? 0)
  }
}

/// Which entries of an L2 table in memory have changed, so that only their sectors are written: a power cut
/// leaves each of them old or new.
struct Qcow2ChangedEntries {
  private let geometry: Qcow2Geometry
  private var sectors: Range<UInt64>?
  private static let sectorByteCount: UInt64 = 512

  init(_ geometry: Qcow2Geometry) { self.geometry = geometry }

  /// `index` must not go down from call to call.
  mutating func note(_ index: UInt64) {
    let sector = index * geometry.entryByteCount / Self.sectorByteCount
    sectors = (sectors?.lowerBound ?? sector)..<sector + 1
  }

  func write(_ buffer: UnsafeMutableRawBufferPointer, toTableAt table: UInt64, in file: any ByteStore)
    throws(EngineError)
  {
    guard let sectors else { return }
    let start = sectors.lowerBound * Self.sectorByteCount
    let part = unsafe buffer[Int(start)..<Int(sectors.upperBound * Self.sectorByteCount)]
    unsafe try file.write(UnsafeRawBufferPointer(rebasing: part), at: table + start)
  }
}

extension ByteStore {
  /// Writes one word; aligned to its size, a power cut leaves the old or the new one.
  func write(bigEndian word: UInt64, at offset: UInt64) throws(EngineError) {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: word)
    try write(bytes: bytes, at: offset)
  }
}
