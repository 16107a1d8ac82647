import Synchronization

extension Qcow2Layer: SnapshotChanging {
  @discardableResult
  func createSnapshot(named name: String, at date: SnapshotDate) throws(EngineError) -> SnapshotRecord {
    try requireSoundSnapshots()
    return try rewrite { (rewrite) throws(EngineError) in
      let trees = try Qcow2TreeRewriter(rewrite)
      let header = rewrite.prologue.header
      var snapshots = try rewrite.snapshots()
      var l1 = try rewrite.activeL1()
      try trees.requireSound(l1)
      try trees.addReferences(of: l1)
      try trees.clearCopiedFlags(of: &l1, userCount: 2)
      try rewrite.replaceActive(with: l1)
      let new = Self.newSnapshot(named: name, at: date, l1: try l1.write(to: rewrite), header, snapshots)
      snapshots.append(new)
      try rewrite.replaceSnapshots(with: snapshots)
      return new.record
    }
  }

  func applySnapshot(_ record: SnapshotRecord) throws(EngineError) {
    try requireSoundSnapshots()
    try refuseApplying(record)
    try rewrite { (rewrite) throws(EngineError) in
      let header = rewrite.prologue.header
      let snapshots = try rewrite.snapshots()
      let snapshot = try snapshots.first(recordedAs: record)
      let trees = try Qcow2TreeRewriter(rewrite)
      let old = try rewrite.activeL1()
      var l1 = try rewrite.l1(of: snapshot)
      try trees.requireSound(old)
      try trees.requireSound(l1)
      // The old disk first: so no cluster that both use needs more references in between than at the end.
      try trees.removeReferences(of: old)
      try trees.addReferences(of: l1)
      try trees.clearCopiedFlags(of: &l1, userCount: 1)
      // Its table has what its disk needed and VM state needs; the disk's size may be recorded as larger.
      l1.grow(to: Int(header.geometry.l1Count(forVirtualSize: snapshot.record.virtualSize)))
      try rewrite.replaceActive(with: l1)
      rewrite.prologue.header.virtualSize = snapshot.record.virtualSize
      // Entries that leave their disk's size to the header get it before the header's changes.
      if snapshot.record.virtualSize != header.virtualSize { try rewrite.replaceSnapshots(with: snapshots) }
    }
  }

  func deleteSnapshot(_ record: SnapshotRecord) throws(EngineError) {
    try requireSoundSnapshots()
    try rewrite { (rewrite) throws(EngineError) in
      var snapshots = try rewrite.snapshots()
      let snapshot = try snapshots.remove(recordedAs: record)
      let trees = try Qcow2TreeRewriter(rewrite)
      let old = try rewrite.l1(of: snapshot)
      var l1 = try rewrite.activeL1()
      try trees.requireSound(old)
      try trees.requireSound(l1)
      try trees.removeReferences(of: old)
      try rewrite.remove(
        rewrite.clusters(at: snapshot.l1Offset, byteCount: UInt64(snapshot.l1Count) * 8))
      try trees.setCopiedFlags(of: &l1)
      try rewrite.replaceActive(with: l1)
      try rewrite.replaceSnapshots(with: snapshots)
    }
  }

  /// What a change of snapshots relies on, looked at before anything is written: damage is an error, and
  /// leaves the image as it is.
  private func requireSoundSnapshots() throws(EngineError) {
    let header = state.withLock { $0.prologue.header }
    // The counts say nothing of a data file's clusters, so nothing could be shared; qemu-img has no more words.
    guard !header.incompatibleFeatures.contains(.externalDataFile) else {
      throw .unsupported("Operation not supported")
    }
    let fileEnd = try file.byteCount()
    for snapshot in try snapshotTable(keeping: .shown) { try snapshot.validate(header, fileEnd: fileEnd) }
  }

  /// What stands in the way of going back to a snapshot, as with qemu-img.
  private func refuseApplying(_ record: SnapshotRecord) throws(EngineError) {
    let prologue = state.withLock { $0.prologue }
    if prologue.header.version < 3 && record.virtualSize != prologue.header.virtualSize {
      throw .unsupported("Can't resize a v2 image which has snapshots")
    }
    let l1Count = geometry.l1Count(forVirtualSize: record.virtualSize)
    guard record.virtualSize <= maximumFileOffset, l1Count <= Qcow2Header.maximumL1Bytes / 8 else {
      throw EngineError(.tooLarge, "The L1 table of the snapshot's disk would be larger than 32 MiB")
    }
    // They would not know of what changes with the snapshot.
    if prologue.hasBitmaps { throw .unsupported("Device has active dirty bitmaps") }
  }

  private static func newSnapshot(
    named name: String, at date: SnapshotDate, l1 l1Offset: UInt64, _ header: Qcow2Header,
    _ others: [Qcow2Snapshot]
  ) -> Qcow2Snapshot {
    let id = String(others.map(\.idNumber).max().map { $0.addingReportingOverflow(1).partialValue } ?? 1)
    // As long as qemu-img lets a name be.
    let nameBytes = Array(name.hostBytes.prefix(SnapshotRecord.shownNameByteCount))
    let record = SnapshotRecord(
      id: id, name: String(hostBytes: nameBytes), dateSeconds: date.seconds,
      dateNanoseconds: date.nanoseconds, vmClock: 0, vmStateSize: 0, virtualSize: header.virtualSize,
      instructionCount: 0, place: l1Offset)
    return Qcow2Snapshot(
      l1Offset: l1Offset, l1Count: header.l1Count, record: record, idBytes: Array(id.utf8),
      nameBytes: nameBytes, unknownExtra: [])
  }
}

extension Qcow2Snapshot {
  /// The decimal number that the id begins with, 0 where there is none.
  fileprivate var idNumber: UInt64 {
    let digits = idBytes.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    return UInt64(String(decoding: digits, as: UTF8.self)) ?? 0
  }

  /// Checks the place of the L1 table and the disk's size.
  func validate(_ header: Qcow2Header, fileEnd: UInt64) throws(EngineError) {
    try header.validateTable(
      "Snapshot L1 table", offset: l1Offset, count: UInt64(l1Count), entryByteCount: 8,
      maximumBytes: Qcow2Header.maximumL1Bytes)
    // `validateTable` has seen to it that the sum does not overflow.
    guard l1Count == 0 || l1Offset + UInt64(l1Count) * 8 <= fileEnd.aligned(upTo: header.geometry.clusterSize)
    else {
      throw .corrupt("Snapshot L1 table lies past the end of the image file", at: l1Offset)
    }
    guard record.virtualSize <= maximumFileOffset else {
      throw .corrupt("Snapshot disk size \(record.virtualSize) is too large")
    }
  }
}

extension [Qcow2Snapshot] {
  func first(recordedAs record: SnapshotRecord) throws(EngineError) -> Qcow2Snapshot {
    guard let snapshot = first(where: { $0.record == record }) ?? first(where: { $0.record.shown == record })
    else {
      throw EngineError(.notFound, "Can't find snapshot '\(record.name)'")
    }
    return snapshot
  }

  fileprivate mutating func remove(recordedAs record: SnapshotRecord) throws(EngineError) -> Qcow2Snapshot {
    let snapshot = try first(recordedAs: record)
    if let index = firstIndex(of: snapshot) { remove(at: index) }
    return snapshot
  }
}

extension Qcow2Rewrite {
  /// The L1 table of the disk, as it stands in the file.
  func activeL1() throws(EngineError) -> Qcow2L1Table {
    try Qcow2L1Table(at: prologue.header.l1Offset, count: prologue.header.l1Count, from: file)
  }

  func l1(of snapshot: Qcow2Snapshot) throws(EngineError) -> Qcow2L1Table {
    try Qcow2L1Table(at: snapshot.l1Offset, count: snapshot.l1Count, from: file)
  }

  /// Puts another L1 table in the place of the active one, where it says anything else.
  func replaceActive(with l1: Qcow2L1Table) throws(EngineError) {
    if try l1 != activeL1() { try replaceL1(with: l1) }
  }
}
