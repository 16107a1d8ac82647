/// F2FS: a superblock at byte 1024 (the kernel's Documentation/filesystems/f2fs.rst). Little-endian.
///
///      0 -  3  F2F52010           12 -  15  log of sectors of a block
///      4 -  7  version            16 -  19  log of bytes of a block
///      8 - 11  log of bytes      108 - 123  UUID
///              of a sector       124 - 635  label, UTF-16
enum F2FSSuperblock: FileSystemSignature {
  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    try window.parsed(at: 1024, count: 1024) { (span) throws(EngineError) in
      guard try span.littleEndian(UInt32.self, at: 0) == 0xf2f5_2010 else { return nil }
      let sectorLog = try span.littleEndian(UInt32.self, at: 8)
      let blockSectorLog = try span.littleEndian(UInt32.self, at: 12)
      let blockLog = try span.littleEndian(UInt32.self, at: 16)
      guard (9...16).contains(sectorLog), (12...16).contains(blockLog), blockSectorLog <= 16,
        UInt64(sectorLog) + UInt64(blockSectorLog) == UInt64(blockLog)
      else { return nil }
      // The first version had its fields elsewhere.
      let (major, minor) = (
        try span.littleEndian(UInt16.self, at: 4), try span.littleEndian(UInt16.self, at: 6)
      )
      guard major != 1 || minor != 0 else { return FileSystemIdentity(type: "f2fs") }
      return FileSystemIdentity(
        type: "f2fs", label: IdentifierText.label(utf16: try span.utf16Units(at: 124, count: 256)),
        uuid: IdentifierText.uuid(try span.bytes(in: 108..<124)))
    }
  }
}
