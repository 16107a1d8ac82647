/// Linux's swap space: a signature at the end of the first page, a header at byte 1024 (mkswap), in the byte order of its
/// machine.
///
///     1024 - 1027  version, 1      1036 - 1051  UUID
///     1028 - 1031  last page       1052 - 1067  label
enum SwapSpace: FileSystemSignature {
  private static let signature = Array("SWAPSPACE2".utf8)
  private static let oldSignature = Array("SWAP-SPACE".utf8)
  /// The pages of all machines that Linux runs on.
  private static let pageByteCounts: [UInt64] = [4 * KiB, 8 * KiB, 16 * KiB, 32 * KiB, 64 * KiB]

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    for pageByteCount in pageByteCounts {
      let found = try window.bytes(at: pageByteCount - 10, count: 10)
      if found == oldSignature { return FileSystemIdentity(type: "swap") }
      guard found == signature else { continue }
      return try window.parsed(at: 1024, count: 44) { (span) throws(EngineError) in
        let version = try span.littleEndian(UInt32.self, at: 0)
        guard version == 1 || version.byteSwapped == 1, try span.littleEndian(UInt32.self, at: 4) != 0
        else { return nil }
        return FileSystemIdentity(
          type: "swap", label: IdentifierText.label(try span.bytes(in: 28..<44)),
          uuid: IdentifierText.uuid(try span.bytes(in: 12..<28)))
      }
    }
    return nil
  }
}
