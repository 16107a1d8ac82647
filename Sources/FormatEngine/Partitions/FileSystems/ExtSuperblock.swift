/// ext2, ext3 and ext4: 1024 bytes at byte 1024 (the kernel's Documentation/filesystems/ext4/super.rst). Little-endian.
///
///       0 -    3  inodes                  100 -  103  features, read-only compatible
///       4 -    7  blocks, low half        104 -  119  UUID
///      24 -   27  log of block size - 10  120 -  135  label
///      56 -   57  EF53                   1020 - 1023  CRC-32C of what is before it
///      92 -   95  features, compatible
///      96 -   99  features, incompatible
enum ExtSuperblock: FileSystemSignature {
  private static let hasJournal: UInt32 = 0x4
  private static let isJournal: UInt32 = 0x8
  private static let hasChecksums: UInt32 = 0x400
  /// What ext3 knows: file types, a journal to replay, block groups in metagroups.
  private static let ext3Incompatible: UInt32 = 0x2 | 0x4 | 0x10
  /// What ext3 knows: sparse superblocks, large files, trees in folders.
  private static let ext3ReadOnly: UInt32 = 0x1 | 0x2 | 0x4

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    let bytes = try window.bytes(at: 1024, count: 1024)
    return try bytes.parsed { (span) throws(EngineError) in
      guard try span.littleEndian(UInt16.self, at: 56) == 0xef53,
        // Blocks of at most 64 KiB.
        try span.littleEndian(UInt32.self, at: 24) <= 6, try span.littleEndian(UInt32.self, at: 0) != 0,
        try span.littleEndian(UInt32.self, at: 4) != 0
      else { return nil }
      let compatible = try span.littleEndian(UInt32.self, at: 92)
      let incompatible = try span.littleEndian(UInt32.self, at: 96)
      let readOnly = try span.littleEndian(UInt32.self, at: 100)
      guard incompatible & isJournal == 0 else { return nil }
      if readOnly & hasChecksums != 0 {
        // Without the last step of the usual CRC-32C, which inverts it.
        let checksum = ~CRC32C.checksum(of: Array(bytes[..<1020]))
        guard try span.littleEndian(UInt32.self, at: 1020) == checksum else { return nil }
      }
      let isExt4 = incompatible & ~ext3Incompatible != 0 || readOnly & ~ext3ReadOnly != 0
      return FileSystemIdentity(
        type: isExt4 ? "ext4" : compatible & hasJournal != 0 ? "ext3" : "ext2",
        label: IdentifierText.label(try span.bytes(in: 120..<136)),
        uuid: IdentifierText.uuid(try span.bytes(in: 104..<120)))
    }
  }
}
