/// The master boot record: sector 0 of a disk. Numbers are little-endian.
///
///       0 - 439  boot code             446 - 509  four entries of 16 bytes
///     440 - 443  disk signature        510 - 511  55 AA
struct MBRSector: Sendable {
  /// An entry of it, or of a sector in the chain of logical partitions.
  ///
  ///     0       80: active             8 - 11  first sector
  ///     1 - 3   first cylinder ...    12 - 15  how many sectors, 0: not used
  ///     4       type
  ///     5 - 7   last cylinder ...
  struct Entry: Equatable, Sendable {
    var bootIndicator: UInt8
    var type: UInt8
    var firstSector: UInt64
    var sectorCount: UInt64

    /// As Linux sees it: the type does not matter.
    var isUsed: Bool { sectorCount != 0 }
    var isExtended: Bool { [0x05, 0x0f, 0x85].contains(type) }
    /// Stands for a GPT.
    var isProtective: Bool { type == 0xee }
    var hasBootIndicator: Bool { bootIndicator == 0 || bootIndicator == 0x80 }
  }

  let signature: UInt32
  /// Four.
  let entries: [Entry]

  static let byteCount = 512

  /// Whether a GPT is to be looked for.
  var isProtective: Bool { entries.contains { $0.isProtective } }

  /// What blkid calls PTUUID, nil where there is none.
  var uuid: String? { signature == 0 ? nil : IdentifierText.hexadecimal(UInt64(signature), 8) }

  /// Nil where sector 0 is no MBR: without the two bytes at its end, with entries that are none, and where it is the boot
  /// sector of a file system, which ends with the same bytes.
  static func read(_ disk: DiskWindow) throws(EngineError) -> MBRSector? {
    let bytes = try disk.bytes(at: 0, count: byteCount)
    guard let entries = try entries(of: bytes), entries.allSatisfy({ $0.hasBootIndicator }) else {
      return nil
    }
    guard !entries.contains(where: { $0.isProtective }) else {
      return MBRSector(signature: try signature(of: bytes), entries: entries)
    }
    let isFileSystem = FileSystemIdentity.withBootSectors.contains { (try? $0.identify(disk)) ?? nil != nil }
    return isFileSystem ? nil : MBRSector(signature: try signature(of: bytes), entries: entries)
  }

  private static func signature(of bytes: [UInt8]) throws(EngineError) -> UInt32 {
    try bytes.parsed { (span) throws(EngineError) in try span.littleEndian(UInt32.self, at: 440) }
  }

  /// The four entries in a sector, nil where it does not end with 55 AA.
  static func entries(of sector: [UInt8]) throws(EngineError) -> [Entry]? {
    try sector.parsed { (span) throws(EngineError) in
      guard try span.littleEndian(UInt16.self, at: 510) == 0xaa55 else { return nil }
      var entries: [Entry] = []
      for offset in stride(from: 446, to: 510, by: 16) {
        entries.append(
          Entry(
            bootIndicator: try span.littleEndian(UInt8.self, at: offset),
            type: try span.littleEndian(UInt8.self, at: offset + 4),
            firstSector: UInt64(try span.littleEndian(UInt32.self, at: offset + 8)),
            sectorCount: UInt64(try span.littleEndian(UInt32.self, at: offset + 12))))
      }
      return entries
    }
  }
}
