/// exFAT: the boot sector (Microsoft's exFAT specification, "Main Boot Sector"). Little-endian.
///
///       3 -  10  "EXFAT   "                    92 -  95  clusters
///      72 -  79  sectors of the volume         96 -  99  first cluster of the root folder
///      80 -  83  first sector of the FAT      100 - 103  serial number
///      84 -  87  sectors of the FAT           108        log of bytes of a sector
///      88 -  91  first sector of clusters     109        log of sectors of a cluster
enum ExFATVolume: FileSystemSignature {
  private static let signature = Array("EXFAT   ".utf8)
  private static let labelEntry: UInt8 = 0x83
  private static let entryByteCount = 32
  /// The label is one of the first entries.
  private static let maximumRootByteCount = 64 * KiB
  /// The boot sector and what follows it, in sectors; then comes a sector with their checksum.
  private static let summedSectorCount = 11

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    let boot = try window.bytes(at: 0, count: 512)
    return try boot.parsed { (span) throws(EngineError) in
      guard try span.bytes(in: 3..<11) == signature, try span.bytes(in: 11..<64).allSatisfy({ $0 == 0 })
      else { return nil }
      let sectorShift = try span.littleEndian(UInt8.self, at: 108)
      let clusterShift = try span.littleEndian(UInt8.self, at: 109)
      guard (9...12).contains(sectorShift), Int(clusterShift) + Int(sectorShift) <= 25,
        try isSummed(window, sectorByteCount: 1 << Int(sectorShift))
      else { return nil }
      let label =
        (try? label(window, span, sectorShift: UInt64(sectorShift), clusterShift: UInt64(clusterShift)))
      return FileSystemIdentity(
        type: "exfat", label: label ?? nil,
        uuid: IdentifierText.volumeSerial(try span.littleEndian(UInt32.self, at: 100)))
    }
  }

  /// Whether the boot region has the checksum that it says ("Boot Checksum"). The flags and the percentage in use change
  /// without it.
  private static func isSummed(_ window: DiskWindow, sectorByteCount: Int) throws(EngineError) -> Bool {
    let bytes = try window.bytes(at: 0, count: (summedSectorCount + 1) * sectorByteCount)
    var sum: UInt32 = 0
    for (index, byte) in bytes[..<(summedSectorCount * sectorByteCount)].enumerated()
    where ![106, 107, 112].contains(index) {
      sum = (sum << 31 | sum >> 1) &+ UInt32(byte)
    }
    return try bytes.parsed { (span) throws(EngineError) in
      try span.littleEndian(UInt32.self, at: summedSectorCount * sectorByteCount) == sum
    }
  }

  private static func label(
    _ window: DiskWindow, _ boot: RawSpan, sectorShift: UInt64, clusterShift: UInt64
  ) throws(EngineError) -> String? {
    let heap = UInt64(try boot.littleEndian(UInt32.self, at: 88)) << sectorShift
    let table = UInt64(try boot.littleEndian(UInt32.self, at: 80)) << sectorShift
    let clusterByteCount = UInt64(1) << (sectorShift + clusterShift)
    var cluster = UInt64(try boot.littleEndian(UInt32.self, at: 96))
    var left = maximumRootByteCount
    while left > 0, cluster >= 2 {
      let count = min(left, clusterByteCount)
      left -= count
      // A number of 32 bits times at most 2^25, and one of 44 bits: nothing overflows.
      let entries = try window.bytes(at: heap + (cluster - 2) * clusterByteCount, count: Int(count))
      for offset in stride(from: 0, to: entries.count - entryByteCount + 1, by: entryByteCount) {
        if entries[offset] == 0 { return nil }
        guard entries[offset] == labelEntry else { continue }
        return try entries.parsed { (span) throws(EngineError) in
          let length = min(11, Int(entries[offset + 1]))
          return IdentifierText.label(utf16: try span.utf16Units(at: offset + 2, count: length))
        }
      }
      cluster = try window.parsed(at: table + cluster * 4, count: 4) { (span) throws(EngineError) in
        UInt64(try span.littleEndian(UInt32.self, at: 0))
      }
    }
    return nil
  }
}
