extension Qcow2Header {
  /// 32 MiB of L1 still covers 2 PiB at 64 KiB clusters; more is a damaged or hostile header.
  static let maximumL1Bytes: UInt64 = 32 * MiB
  /// 8 MiB of refcount table still counts 2 PiB of file at 64 KiB clusters and 16 bits.
  static let maximumRefcountTableBytes: UInt64 = 8 * MiB
  /// As many as qemu-img keeps.
  static let maximumSnapshotCount: UInt32 = 65536
  /// The specification's own limit.
  static let maximumBackingNameLength: UInt32 = 1023

  /// Checks every number against its range and against the others, once, before anything uses one.
  /// Unknown features are the extensions' to name: see `Qcow2HeaderExtensions`.
  ///
  /// `toleratingDamage`: a missing refcount table and too many snapshots are for a check to tell.
  func validate(toleratingDamage: Bool = false) throws(EngineError) {
    guard Qcow2Geometry.clusterBitsRange.contains(clusterBits) else {
      throw .unsupported("Unsupported cluster size: 2^\(clusterBits)")
    }
    try validateHeaderLength()
    guard encryptionMethod <= 2 else {
      throw .unsupported("Unsupported encryption method \(encryptionMethod)")
    }
    guard refcountOrder <= 6 else {
      throw .unsupported("Reference count entry width too large; may not exceed 64 bits")
    }
    guard virtualSize <= maximumFileOffset else { throw .corrupt("Image size \(virtualSize) is too large") }
    try validateFeatures()
    if !toleratingDamage || refcountTableClusters > 0 { try validateRefcountTable() }
    try validateTables(toleratingDamage: toleratingDamage)
    try validateBackingName()
  }

  private func validateHeaderLength() throws(EngineError) {
    guard version == 3 else { return }
    guard headerLength >= Self.version3Length else { throw .corrupt("qcow2 header too short") }
    guard UInt64(headerLength) <= geometry.clusterSize else {
      throw .corrupt("qcow2 header exceeds cluster size")
    }
  }

  private func validateFeatures() throws(EngineError) {
    if incompatibleFeatures.contains(.extendedL2), clusterBits < 14 {
      throw .corrupt(
        "Extended L2 entries need clusters of at least 16 KiB, not \(geometry.clusterSize) bytes")
    }
    let hasCompressionBit = incompatibleFeatures.contains(.compressionType)
    guard hasCompressionBit == (compressionType != 0) else {
      throw .corrupt(
        "Compression type incompatible feature bit must\(hasCompressionBit ? " not" : "") be set")
    }
    guard compressionType <= 1 else {
      throw .unsupported("qcow2: unknown compression type: \(compressionType)")
    }
  }

  private func validateRefcountTable() throws(EngineError) {
    try validateTable(
      "Reference count table", offset: refcountTableOffset, count: UInt64(refcountTableClusters),
      entryByteCount: geometry.clusterSize, maximumBytes: Self.maximumRefcountTableBytes)
    guard refcountTableClusters > 0 else { throw .corrupt("Image does not contain a reference count table") }
  }

  /// Where a table cannot be where its field says: as if there were none. Says what was wrong.
  mutating func removeDamagedTables() -> [String] {
    var damage: [String] = []
    if snapshotCount > 0, snapshotsOffset == 0 {
      // There is the header.
      snapshotCount = 0
      damage.append("Snapshot table offset invalid")
    }
    guard refcountTableClusters > 0, refcountOrder <= 6 else { return damage }
    do throws(EngineError) {
      try validateRefcountTable()
    } catch {
      (refcountTableOffset, refcountTableClusters) = (0, 0)
      damage.append(error.message)
    }
    return damage
  }

  private func validateTables(toleratingDamage: Bool) throws(EngineError) {
    try validateTable(
      "Active L1 table", offset: l1Offset, count: UInt64(l1Count), entryByteCount: 8,
      maximumBytes: Self.maximumL1Bytes)
    let needed = geometry.l1Count(forVirtualSize: virtualSize)
    guard needed <= UInt64(Int32.max) else { throw EngineError(.tooLarge, "Image is too big") }
    guard UInt64(l1Count) >= needed else { throw .corrupt("L1 table is too small") }
    guard toleratingDamage || snapshotCount <= Self.maximumSnapshotCount else {
      throw .corrupt("Snapshot table too large")
    }
    if snapshotCount > 0 {
      try validateTable(
        "Snapshot table", offset: snapshotsOffset,
        count: UInt64(min(snapshotCount, Self.maximumSnapshotCount)), entryByteCount: 40,
        maximumBytes: UInt64(Self.maximumSnapshotCount) * 1024)
    }
  }

  /// Count, alignment and end of any table that a header or a snapshot names.
  func validateTable(
    _ name: String, offset: UInt64, count: UInt64, entryByteCount: UInt64, maximumBytes: UInt64
  ) throws(EngineError) {
    guard count <= maximumBytes / entryByteCount else { throw .corrupt("\(name) too large") }
    let byteCount = count * entryByteCount
    guard offset <= maximumFileOffset - byteCount, offset.isAligned(to: geometry.clusterSize) else {
      throw .corrupt("\(name) offset invalid", at: offset)
    }
  }

  /// The tables that every image has must be in the file; what is cut off would read as zeros.
  func requireTables(insideFileOf byteCount: UInt64, toleratingDamage: Bool = false) throws(EngineError) {
    let end = byteCount.aligned(upTo: geometry.clusterSize)
    // `validate` has seen to it that neither sum overflows.
    guard l1Count == 0 || l1Offset + UInt64(l1Count) * 8 <= end else {
      throw .corrupt("Active L1 table lies past the end of the image file", at: l1Offset)
    }
    guard
      toleratingDamage
        || refcountTableOffset + UInt64(refcountTableClusters) * geometry.clusterSize <= end
    else {
      throw .corrupt("Reference count table lies past the end of the image file", at: refcountTableOffset)
    }
  }

  private func validateBackingName() throws(EngineError) {
    guard backingNameOffset != 0 else { return }
    guard backingNameOffset <= geometry.clusterSize else { throw .corrupt("Invalid backing file offset") }
    guard backingNameLength <= Self.maximumBackingNameLength,
      UInt64(backingNameLength) <= geometry.clusterSize - backingNameOffset
    else { throw .corrupt("Backing file name too long") }
  }
}
