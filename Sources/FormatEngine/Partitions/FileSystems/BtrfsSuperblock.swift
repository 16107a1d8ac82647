/// btrfs: 4096 bytes at 64 KiB (btrfs's on-disk format, "Superblock"). Little-endian.
///
///       0 -  31  checksum of what follows     196 - 197  its algorithm, 0: CRC-32C
///      32 -  47  UUID                         299 - 554  label
///      48 -  55  place of this block
///      64 -  71  "_BHRfS_M"
enum BtrfsSuperblock: FileSystemSignature {
  private static let place = 64 * KiB
  private static let signature = Array("_BHRfS_M".utf8)

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    let bytes = try window.bytes(at: place, count: 4096)
    return try bytes.parsed { (span) throws(EngineError) in
      guard try span.bytes(in: 64..<72) == signature, try span.littleEndian(UInt64.self, at: 48) == place
      else { return nil }
      if try span.littleEndian(UInt16.self, at: 196) == 0 {
        let checksum = CRC32C.checksum(of: Array(bytes[32...]))
        guard try span.littleEndian(UInt32.self, at: 0) == checksum else { return nil }
      }
      return FileSystemIdentity(
        type: "btrfs", label: IdentifierText.label(try span.bytes(in: 299..<555)),
        uuid: IdentifierText.uuid(try span.bytes(in: 32..<48)))
    }
  }
}
