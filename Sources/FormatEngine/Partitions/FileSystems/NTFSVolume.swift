/// NTFS: the boot sector, and the record of `$Volume` for the label (linux-ntfs, "NTFS Documentation"). Little-endian.
///
///      3 - 10  "NTFS    "                     48 - 55  first cluster of the master file table
///     11 - 12  bytes of a sector              64       clusters of a record, or minus the log of its bytes
///     13       sectors of a cluster,          72 - 79  serial number
///              or minus the log of them
enum NTFSVolume: FileSystemSignature {
  private static let signature = Array("NTFS    ".utf8)
  /// Its place in the master file table.
  private static let volumeRecordIndex: UInt64 = 3
  private static let nameAttribute: UInt32 = 0x60

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    try window.parsed(at: 0, count: 512) { (span) throws(EngineError) in
      let sectorByteCount = UInt64(try span.littleEndian(UInt16.self, at: 11))
      guard try span.bytes(in: 3..<11) == signature, sectorByteCount.isPowerOfTwo,
        (256...4096).contains(sectorByteCount),
        let clusterSectorCount = clusterSectorCount(try span.littleEndian(UInt8.self, at: 13)),
        // What FAT has in these places is zero.
        try span.bytes(in: 14..<21).allSatisfy({ $0 == 0 }),
        try span.bytes(in: 22..<24).allSatisfy({ $0 == 0 })
      else { return nil }
      let clusterByteCount = clusterSectorCount * sectorByteCount
      let recordSize = try span.littleEndian(Int8.self, at: 64)
      guard let recordByteCount = recordByteCount(recordSize, clusterByteCount) else { return nil }
      let (table, isFar) = try span.littleEndian(UInt64.self, at: 48).multipliedReportingOverflow(
        by: clusterByteCount)
      // Records are of at most 4 KiB.
      let (place, isFarther) = table.addingReportingOverflow(volumeRecordIndex * recordByteCount)
      guard !isFar, !isFarther, try window.bytes(at: table, count: 4) == Array("FILE".utf8) else {
        return nil
      }
      let label = (try? label(inRecord: window.bytes(at: place, count: Int(recordByteCount)))) ?? nil
      let serial = IdentifierText.hexadecimal(try span.littleEndian(UInt64.self, at: 72), 16)
      return FileSystemIdentity(type: "ntfs", label: label, uuid: serial.uppercased())
    }
  }

  private static func clusterSectorCount(_ size: UInt8) -> UInt64? {
    if size.isPowerOfTwo, size <= 128 { return UInt64(size) }
    // Clusters of up to 2 MiB.
    return size >= 240 && size <= 249 + 6 ? UInt64(1) << (256 - UInt64(size)) : nil
  }

  private static func recordByteCount(_ size: Int8, _ clusterByteCount: UInt64) -> UInt64? {
    let byteCount =
      size < 0 ? (size >= -12 ? UInt64(1) << UInt64(-Int(size)) : 0) : UInt64(size) * clusterByteCount
    return byteCount.isPowerOfTwo && (256...4096).contains(byteCount) ? byteCount : nil
  }

  /// A record: 0 - 3 "FILE", 20 - 21 first attribute. An attribute: 0 - 3 type, 4 - 7 bytes of it, 16 - 19 bytes of
  /// what it holds, 20 - 21 where that is.
  private static func label(inRecord bytes: [UInt8]) throws(EngineError) -> String? {
    try bytes.parsed { (span) throws(EngineError) in
      guard try span.bytes(in: 0..<4) == Array("FILE".utf8) else { return nil }
      var offset = Int(try span.littleEndian(UInt16.self, at: 20))
      while offset + 24 <= bytes.count {
        let type = try span.littleEndian(UInt32.self, at: offset)
        let length = Int(try span.littleEndian(UInt32.self, at: offset + 4))
        guard type != .max, length >= 24 else { return nil }
        if type == nameAttribute {
          let count = Int(try span.littleEndian(UInt32.self, at: offset + 16))
          let start = offset + Int(try span.littleEndian(UInt16.self, at: offset + 20))
          guard count <= bytes.count else { return nil }
          return IdentifierText.label(utf16: try span.utf16Units(at: start, count: count / 2))
        }
        offset += length
      }
      return nil
    }
  }
}
