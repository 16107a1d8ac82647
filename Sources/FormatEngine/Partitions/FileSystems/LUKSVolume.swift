/// LUKS 1 and 2: the first bytes of either header (LUKS1 and LUKS2 on-disk format specifications). Big-endian.
///
///     0 - 5  "LUKS" BA BE       24 -  71  label, LUKS 2 only
///     6 - 7  version           168 - 207  UUID, as text
enum LUKSVolume: FileSystemSignature {
  private static let signature: [UInt8] = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    try window.parsed(at: 0, count: 512) { (span) throws(EngineError) in
      guard try span.bytes(in: 0..<6) == signature else { return nil }
      let version = try span.bigEndian(UInt16.self, at: 6)
      guard version == 1 || version == 2 else { return nil }
      return FileSystemIdentity(
        type: "crypto_LUKS", label: version == 2 ? IdentifierText.label(try span.bytes(in: 24..<72)) : nil,
        uuid: IdentifierText.label(try span.bytes(in: 168..<208)))
    }
  }
}
