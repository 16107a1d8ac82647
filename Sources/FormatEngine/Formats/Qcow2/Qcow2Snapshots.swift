import Synchronization

/// An entry of the snapshot table (qcow2.txt, "Snapshots").
///
///      0 -  7  L1 table offset      14 - 15  length of name         32 - 35  VM state size
///      8 - 11  L1 entries           16 - 19  date, seconds          36 - 39  length of extra fields
///     12 - 13  length of id         20 - 23  date, nanoseconds      40 -     extra: 64-bit VM state size,
///                                   24 - 31  VM clock                        disk size, instruction count
struct Qcow2Snapshot: Equatable, Sendable {
  var l1Offset: UInt64
  var l1Count: UInt32
  var record: SnapshotRecord
  /// Id and name as they are stored: they may be no UTF-8.
  var idBytes: [UInt8]
  var nameBytes: [UInt8]
  /// Fields after the known ones, kept as they are.
  var unknownExtra: [UInt8]

  /// What of an entry is kept in memory: of the largest table twice 64 MiB are names.
  enum Kept {
    /// All bytes, to be written again.
    case everything
    /// What is asked for: the record, with the whole names.
    case record
    /// The record as lists show it.
    case shown
  }

  static let fixedLength = 40
  /// qemu-img's own limit; 24 bytes are in use.
  static let maximumExtraLength = 1024
  /// 64 MiB: every snapshot of the largest list can have an id, a name and extra fields of 1 KiB.
  static let maximumTableBytes = 64 * MiB
}

extension Qcow2Snapshot {
  /// Reads the snapshot table of `header`.
  static func readAll(_ header: Qcow2Header, from file: any ByteStore, keeping: Kept = .everything)
    throws(EngineError) -> [Qcow2Snapshot]
  {
    try readTable(header, from: file, keeping: keeping).snapshots
  }

  /// The same, with the length of the table: only reading it tells.
  static func readTable(_ header: Qcow2Header, from file: any ByteStore, keeping: Kept = .everything)
    throws(EngineError) -> (snapshots: [Qcow2Snapshot], byteCount: UInt64)
  {
    switch try Qcow2CheckedSnapshots.read(
      header, from: file, repairing: false, mustExist: true, keeping: keeping)
    {
    case .read(let table): return (table.entries, table.byteCount)
    case .refused(let words): throw .corrupt(words)
    case .tooMany: throw .corrupt("Snapshot table too large")
    }
  }

  static func parse(
    _ bytes: RawSpan, _ idLength: Int, _ nameLength: Int, _ extraLength: Int, diskSize: UInt64, keeping: Kept
  ) throws(EngineError) -> Qcow2Snapshot {
    func extra(_ offset: Int) throws(EngineError) -> UInt64? {
      extraLength >= offset + 8 ? try bytes.bigEndian(UInt64.self, at: fixedLength + offset) : nil
    }
    func kept(_ shownByteCount: Int) -> Int { keeping == .shown ? shownByteCount : .max }
    let l1Offset = try bytes.bigEndian(UInt64.self, at: 0)
    let idStart = fixedLength + extraLength
    let nameStart = idStart + idLength
    let shortVMStateSize = try bytes.bigEndian(UInt32.self, at: 32)
    let vmStateSize = try extra(0)
    let recordedSize = try extra(8)
    let instructions = try extra(16)
    let idBytes = try bytes.bytes(in: idStart..<nameStart)
    let nameBytes = try bytes.bytes(in: nameStart..<nameStart + nameLength)
    // For qemu-img both end at the first NUL.
    let record = SnapshotRecord(
      id: String(hostBytes: idBytes.prefix(kept(SnapshotRecord.shownIDByteCount)).prefix { $0 != 0 }),
      name: String(hostBytes: nameBytes.prefix(kept(SnapshotRecord.shownNameByteCount)).prefix { $0 != 0 }),
      dateSeconds: Int64(try bytes.bigEndian(UInt32.self, at: 16)),
      dateNanoseconds: try bytes.bigEndian(UInt32.self, at: 20),
      vmClock: try bytes.bigEndian(UInt64.self, at: 24),
      vmStateSize: vmStateSize ?? UInt64(shortVMStateSize),
      virtualSize: recordedSize ?? diskSize,
      instructionCount: instructions == UInt64.max ? nil : instructions, place: l1Offset)
    return Qcow2Snapshot(
      l1Offset: l1Offset, l1Count: try bytes.bigEndian(UInt32.self, at: 8),
      record: record, idBytes: keeping == .everything ? idBytes : [],
      nameBytes: keeping == .everything ? nameBytes : [],
      unknownExtra: keeping == .everything
        ? try bytes.bytes(in: fixedLength + min(24, extraLength)..<idStart) : [])
  }
}

extension Qcow2Layer: SnapshotKeeping {
  func snapshots() throws(EngineError) -> [SnapshotRecord] {
    try snapshotTable(keeping: .record).map(\.record)
  }

  func shownSnapshots() throws(EngineError) -> [SnapshotRecord] {
    try snapshotTable(keeping: .shown).map(\.record)
  }

  func snapshotTable(keeping: Qcow2Snapshot.Kept = .everything) throws(EngineError) -> [Qcow2Snapshot] {
    // In the lock, as all tables: a snapshot that is taken or deleted meanwhile moves the list and frees its old place.
    try state.withLock { (state) throws(EngineError) in
      try Qcow2Snapshot.readAll(state.prologue.header, from: file, keeping: keeping)
    }
  }

  func openSnapshot(_ record: SnapshotRecord) throws(EngineError) -> any ImageLayer {
    try state.withLock { (state) throws(EngineError) in
      let snapshots = try Qcow2Snapshot.readAll(state.prologue.header, from: file, keeping: .shown)
      let shown = record.shown
      guard let snapshot = snapshots.first(where: { $0.record == shown }) else {
        throw EngineError(.notFound, "Can't find snapshot '\(record.name)'", path: path)
      }
      return try Qcow2SnapshotLayer(of: self, snapshot, state.prologue)
    }
  }
}
