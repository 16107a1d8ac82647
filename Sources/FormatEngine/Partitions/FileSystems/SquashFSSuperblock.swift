/// SquashFS: the first 96 bytes, which have neither a label nor a UUID (the kernel's Documentation/filesystems/squashfs.rst).
///
///      0 -  3  "hsqs"                 28 - 29  major version
///     12 - 15  bytes of a block       40 - 47  bytes in use
///     22 - 23  their log
enum SquashFSSuperblock: FileSystemSignature {
  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    try window.parsed(at: 0, count: 96) { (span) throws(EngineError) in
      guard try span.littleEndian(UInt32.self, at: 0) == 0x7371_7368,
        try span.littleEndian(UInt16.self, at: 28) == 4
      else { return nil }
      let blockByteCount = try span.littleEndian(UInt32.self, at: 12)
      guard blockByteCount.isPowerOfTwo, (4096...1_048_576).contains(blockByteCount),
        try blockByteCount.trailingZeroBitCount == Int(span.littleEndian(UInt16.self, at: 22)),
        try span.littleEndian(UInt64.self, at: 40) >= 96
      else { return nil }
      return FileSystemIdentity(type: "squashfs")
    }
  }
}
