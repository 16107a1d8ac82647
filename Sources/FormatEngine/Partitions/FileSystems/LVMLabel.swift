/// A physical volume of LVM: a label in one of the first four sectors of 512 bytes. Little-endian.
///
///      0 -  7  "LABELONE"              20 - 23  where the volume's header is in the sector
///      8 - 15  sector of this label    24 - 31  "LVM2 001"
///     16 - 19  CRC-32 of what follows
///
/// That header begins with the volume's identifier, 32 letters and digits.
enum LVMLabel: FileSystemSignature {
  private static let signature = Array("LABELONE".utf8)
  private static let type = Array("LVM2 001".utf8)
  /// What LVM's checksum starts from.
  private static let checksumStart: UInt32 = 0xf597_a6cf
  private static let identifierGroups = [6, 4, 4, 4, 4, 4, 6]

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    for sector in 0..<UInt64(4) {
      let bytes = try window.bytes(at: sector * 512, count: 512)
      guard Array(bytes[..<8]) == signature else { continue }
      return try bytes.parsed { (span) throws(EngineError) in
        let checksum = ~CRC32.checksum(of: Array(bytes[20...]), from: checksumStart)
        guard try span.bytes(in: 24..<32) == type, try span.littleEndian(UInt64.self, at: 8) == sector,
          try span.littleEndian(UInt32.self, at: 16) == checksum
        else { return nil }
        let start = Int(try span.littleEndian(UInt32.self, at: 20))
        guard start <= 512 - 32 else { return nil }
        let identifier = try span.bytes(in: start..<start + 32)
        return FileSystemIdentity(
          type: "LVM2_member", uuid: IdentifierText.grouped(identifier, identifierGroups))
      }
    }
    return nil
  }
}
