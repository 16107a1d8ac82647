extension Qcow2Snapshot {
  /// Bytes of the extra fields that every entry gets which is written here.
  private static let knownExtraLength = 24

  /// The entry as it stands in the table, up to a multiple of 8 bytes. What it leaves out of the fields that
  /// version 3 demands is filled in, as qemu-img does; fields that are not known stay.
  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: l1Offset)
    bytes.append(bigEndian: l1Count)
    bytes.append(bigEndian: UInt16(idBytes.count))
    bytes.append(bigEndian: UInt16(nameBytes.count))
    bytes.append(bigEndian: UInt32(truncatingIfNeeded: record.dateSeconds))
    bytes.append(bigEndian: record.dateNanoseconds)
    bytes.append(bigEndian: record.vmClock)
    bytes.append(bigEndian: UInt32(exactly: record.vmStateSize) ?? 0)
    bytes.append(bigEndian: UInt32(Self.knownExtraLength + unknownExtra.count))
    bytes.append(bigEndian: record.vmStateSize)
    bytes.append(bigEndian: record.virtualSize)
    bytes.append(bigEndian: record.instructionCount ?? .max)
    bytes += unknownExtra + idBytes + nameBytes
    bytes.pad(toMultipleOf: 8)
    return bytes
  }
}

extension Qcow2Rewrite {
  /// The snapshot table of the image as it stands.
  func snapshots() throws(EngineError) -> [Qcow2Snapshot] {
    try Qcow2Snapshot.readAll(prologue.header, from: file)
  }

  /// Writes another snapshot table and gives back the old one.
  func replaceSnapshots(with snapshots: [Qcow2Snapshot]) throws(EngineError) {
    if prologue.header.snapshotCount > 0 {
      let oldByteCount = try Qcow2Snapshot.readTable(prologue.header, from: file).byteCount
      try remove(clusters(at: prologue.header.snapshotsOffset, byteCount: oldByteCount))
    }
    try writeSnapshots(snapshots)
  }

  /// Writes a snapshot table. What became of the old one's clusters was said before.
  func writeSnapshots(_ snapshots: [Qcow2Snapshot]) throws(EngineError) {
    guard snapshots.count <= Int(Qcow2Header.maximumSnapshotCount) else {
      throw EngineError(.tooLarge, "An image has at most \(Qcow2Header.maximumSnapshotCount) snapshots")
    }
    var bytes: [UInt8] = []
    for snapshot in snapshots { bytes += snapshot.serialised() }
    guard UInt64(bytes.count) <= Qcow2Snapshot.maximumTableBytes else {
      throw EngineError(.tooLarge, "The snapshot table would be larger than 64 MiB")
    }
    prologue.header.snapshotsOffset = bytes.isEmpty ? 0 : try allocate(bytes: bytes)
    prologue.header.snapshotCount = UInt32(snapshots.count)
  }
}
