/// EROFS: a superblock at byte 1024 (the kernel's Documentation/filesystems/erofs.rst). Little-endian.
///
///      0 -  3  E0F5E1E2               48 - 63  UUID
///     12       log of bytes           64 - 79  label
///              of a block
enum EROFSSuperblock: FileSystemSignature {
  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    try window.parsed(at: 1024, count: 128) { (span) throws(EngineError) in
      guard try span.littleEndian(UInt32.self, at: 0) == 0xe0f5_e1e2,
        (9...16).contains(try span.littleEndian(UInt8.self, at: 12))
      else { return nil }
      return FileSystemIdentity(
        type: "erofs", label: IdentifierText.label(try span.bytes(in: 64..<80)),
        uuid: IdentifierText.uuid(try span.bytes(in: 48..<64)))
    }
  }
}
