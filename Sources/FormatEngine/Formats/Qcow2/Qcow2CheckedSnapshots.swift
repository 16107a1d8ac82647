/// The snapshot table as it is read: with what is wrong in its entries, and as it would be without.
struct Qcow2CheckedSnapshots {
  /// Those that stay.
  var entries: [Qcow2Snapshot] = []
  /// Bytes of the table in the file, up to the end of the last entry that stays.
  var byteCount: UInt64 = 0
  /// What a repair takes away or adds, one sentence each.
  var repairs: [String] = []
  /// How many things the sentences speak of.
  var repairCount: UInt64 = 0
  /// Whether the table has to be written again without them.
  var needsWriting = false

  /// Extra fields that version 3 asks for: VM state size and disk size (qcow2.txt, "Snapshots").
  private static let neededExtraLength = 16
  /// All the fields that are known, and that are written: those, and the instruction count.
  private static let knownExtraLength = 24
}

extension Qcow2CheckedSnapshots {
  /// Reads the table of `header`. Without `repairing`, what cannot be listed is a refusal. `mustExist`: also what
  /// lies past the end of the file, where else zeros are read.
  static func read(
    _ header: Qcow2Header, from file: any ByteStore, repairing: Bool, mustExist: Bool = false,
    keeping: Qcow2Snapshot.Kept = .everything
  ) throws(EngineError) -> Reading.Outcome {
    guard header.snapshotCount == 0 || header.snapshotsOffset != 0 else {
      // There is the header.
      throw .corrupt("Snapshot table offset invalid")
    }
    var reading = Reading(header: header, repairing: repairing, keeping: keeping)
    let surplus =
      UInt64(header.snapshotCount) - UInt64(min(header.snapshotCount, Qcow2Header.maximumSnapshotCount))
    if surplus > 0 {
      guard repairing else { return .tooMany(surplus) }
      reading.note("Discarding \(surplus) overhanging snapshots", count: surplus)
    }
    let count = UInt64(header.snapshotCount) - surplus
    let fileEnd = try file.byteCount()
    for index in 0..<count {
      let place = try header.snapshotsOffset.adding(reading.position, orCorrupt: "Snapshot table")
      if mustExist && place >= fileEnd {
        throw .corrupt("Snapshot table lies past the end of the image file")
      }
      if repairing && place >= fileEnd {
        let rest = count - index
        reading.note(
          "Discarding \(rest) overhanging snapshots (the image file ends before them)", count: rest)
        break
      }
      if let refusal = try reading.readEntry(index, of: count, from: file) { return .refused(refusal) }
      if reading.isFull { break }
    }
    return .read(reading.finished())
  }

  static func overhanging(_ count: UInt64) -> String {
    "You can force-remove all \(count) overhanging snapshots with qemu-img check -r all"
  }

  /// What is known while the table is read.
  struct Reading {
    enum Outcome {
      case read(Qcow2CheckedSnapshots)
      /// The table cannot be listed as it is; why, and what to do.
      case refused(String)
      /// So many more than any image may have.
      case tooMany(UInt64)
    }

    let header: Qcow2Header
    let repairing: Bool
    let keeping: Qcow2Snapshot.Kept
    var table = Qcow2CheckedSnapshots()
    /// Bytes of the table without what is taken away.
    var keptByteCount = 0
    /// Bytes from the table's start to the next entry, in the file.
    var position: UInt64 = 0
    var isFull = false

    init(header: Qcow2Header, repairing: Bool, keeping: Qcow2Snapshot.Kept) {
      self.header = header
      self.repairing = repairing
      self.keeping = keeping
    }

    mutating func note(_ words: String, count: UInt64 = 1) {
      table.repairs.append(words)
      table.repairCount += count
    }

    mutating func readEntry(_ index: UInt64, of count: UInt64, from file: any ByteStore) throws(EngineError)
      -> String?
    {
      let place = try header.snapshotsOffset.adding(position, orCorrupt: "Snapshot table")
      let fixed = try file.bytes(at: place, count: Qcow2Snapshot.fixedLength)
      let (namesLength, idLength, extraLength) = try fixed.parsed { (span) throws(EngineError) in
        let (id, name) = (
          Int(try span.bigEndian(UInt16.self, at: 12)), Int(try span.bigEndian(UInt16.self, at: 14))
        )
        return (id + name, id, UInt64(try span.bigEndian(UInt32.self, at: 36)))
      }
      let keptLength = Int(min(extraLength, UInt64(Qcow2Snapshot.maximumExtraLength)))
      if extraLength > UInt64(keptLength) {
        guard repairing else {
          return "Too much extra metadata in snapshot table entry "
            + "\(index)\nYou can force-remove this extra metadata with qemu-img check -r all"
        }
        note(
          "Discarding too much extra metadata in snapshot table entry \(index) "
            + "(\(extraLength) > \(Qcow2Snapshot.maximumExtraLength))")
      }
      let length = Qcow2Snapshot.fixedLength + max(keptLength, knownExtraLength) + namesLength
      guard keptByteCount + length <= Qcow2Snapshot.maximumTableBytes else {
        guard repairing else {
          return "Snapshot table is too big\n"
            + Qcow2CheckedSnapshots.overhanging(count - index)
        }
        note(
          "Discarding \(count - index) overhanging snapshots (snapshot table is too big)",
          count: count - index)
        isFull = true
        return nil
      }
      let extra = try file.bytes(at: place + 40, count: keptLength)
      let names = try file.bytes(at: place + 40 + extraLength, count: namesLength)
      try add(
        index, fixed + extra + names, idLength: idLength, nameLength: namesLength - idLength, keptLength)
      table.byteCount = position + 40 + extraLength + UInt64(namesLength)
      position = table.byteCount.aligned(upTo: 8)
      return nil
    }

    private mutating func add(
      _ index: UInt64, _ bytes: [UInt8], idLength: Int, nameLength: Int, _ extraLength: Int
    ) throws(EngineError) {
      let snapshot = try bytes.parsed { (span) throws(EngineError) in
        try Qcow2Snapshot.parse(
          span, idLength, nameLength, extraLength, diskSize: header.virtualSize, keeping: keeping)
      }
      table.entries.append(snapshot)
      if header.version >= 3 && extraLength < neededExtraLength {
        note("\(repairing ? "Repairing" : "ERROR") snapshot table entry \(index) is incomplete")
      }
      keptByteCount = (keptByteCount + bytes.count + max(0, knownExtraLength - extraLength) + 7) & ~7
    }

    func finished() -> Qcow2CheckedSnapshots {
      var result = table
      result.needsWriting = repairing && table.repairCount > 0
      return result
    }
  }
}

extension Qcow2Checker {
  /// Reads the list of snapshots. One that cannot be read ends the check.
  mutating func readSnapshots() throws(EngineError) {
    guard header.snapshotCount > 0 else { return }
    let keeping: Qcow2Snapshot.Kept = repairing == .all ? .everything : .shown
    switch try Qcow2CheckedSnapshots.read(
      header, from: file, repairing: repairing == .all, keeping: keeping)
    {
    case .refused(let words):
      report.failure = CheckFailure(
        "File too large", explanation: "ERROR failed to read the snapshot table: \(words)")
    case .tooMany(let surplus):
      report.failure = CheckFailure(
        "File too large",
        explanation: "ERROR snapshot table too large\n\(Qcow2CheckedSnapshots.overhanging(surplus))")
    case .read(let table):
      snapshots = table
      for words in table.repairs { finding(words) }
      report.corruptions += table.repairCount
    }
  }

  mutating func walkSnapshots() throws(EngineError) {
    guard let snapshots, header.snapshotCount > 0 else { return }
    for snapshot in snapshots.entries {
      let name = "snapshot \(snapshot.record.id) (\(snapshot.record.name))"
      guard snapshot.l1Offset.isAligned(to: geometry.clusterSize) else {
        corruption(
          "ERROR \(name) l1_offset=0x\(hex(snapshot.l1Offset)): L1 table is not cluster aligned; "
            + "snapshot table entry corrupted")
        continue
      }
      guard UInt64(snapshot.l1Count) <= Qcow2Header.maximumL1Bytes / 8 else {
        corruption(
          "ERROR \(name) l1_size=0x\(hex(UInt64(snapshot.l1Count))): L1 table is too large; "
            + "snapshot table entry corrupted")
        continue
      }
      try walkTable(at: snapshot.l1Offset, count: UInt64(snapshot.l1Count), isActive: false)
    }
    try walkSnapshotTables()
    countRange(header.snapshotsOffset, snapshots.byteCount)
  }

  /// 4 MiB of them.
  static let maximumSnapshotTables = 1 << 18

  mutating func walkSnapshotTables() throws(EngineError) {
    snapshotTables.sort { $0.offset < $1.offset }
    var index = 0
    while index < snapshotTables.count {
      let offset = snapshotTables[index].offset
      var weight: UInt64 = 0
      while index < snapshotTables.count, snapshotTables[index].offset == offset {
        weight += snapshotTables[index].weight
        index += 1
      }
      try progress.proceed()
      try walkL2(at: offset, isActive: false, weight: weight)
    }
    snapshotTables.removeAll(keepingCapacity: true)
  }
}
