/// XFS: the first sector (XFS Algorithms & Data Structures, "Superblocks"). Big-endian.
///
///      0 -  3  "XFSB"                  102 - 103  bytes of a sector
///      4 -  7  bytes of a block        104 - 105  bytes of an inode
///      8 - 15  blocks                  106 - 107  inodes in a block
///     32 - 47  UUID                    108 - 119  label
///     84 - 87  blocks of a group       120 - 122  logs of bytes of a block, sector, inode
///     88 - 91  groups
enum XFSSuperblock: FileSystemSignature {
  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    try window.parsed(at: 0, count: 512) { (span) throws(EngineError) in
      guard try span.bigEndian(UInt32.self, at: 0) == 0x5846_5342 else { return nil }
      let blockByteCount = try span.bigEndian(UInt32.self, at: 4)
      let sectorByteCount = try span.bigEndian(UInt16.self, at: 102)
      let inodeByteCount = try span.bigEndian(UInt16.self, at: 104)
      guard blockByteCount.isPowerOfTwo, (512...65536).contains(blockByteCount),
        try blockByteCount.trailingZeroBitCount == Int(span.littleEndian(UInt8.self, at: 120)),
        sectorByteCount.isPowerOfTwo, (512...32768).contains(sectorByteCount),
        try sectorByteCount.trailingZeroBitCount == Int(span.littleEndian(UInt8.self, at: 121)),
        inodeByteCount.isPowerOfTwo, (256...2048).contains(inodeByteCount),
        try inodeByteCount.trailingZeroBitCount == Int(span.littleEndian(UInt8.self, at: 122)),
        try span.bigEndian(UInt64.self, at: 8) > 0, try span.bigEndian(UInt32.self, at: 84) > 0,
        try span.bigEndian(UInt32.self, at: 88) > 0
      else { return nil }
      return FileSystemIdentity(
        type: "xfs", label: IdentifierText.label(try span.bytes(in: 108..<120)),
        uuid: IdentifierText.uuid(try span.bytes(in: 32..<48)))
    }
  }
}
