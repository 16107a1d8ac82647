/// The header of a GUID partition table, of which there are two (UEFI specification, "GPT Header"). Numbers are
/// little-endian, places are sectors.
///
///      0 -  7  "EFI PART"                40 - 47  first sector for partitions
///      8 - 11  revision                  48 - 55  last sector for partitions
///     12 - 15  bytes of the header       56 - 71  GUID of the disk
///     16 - 19  CRC-32 of them            72 - 79  first sector of the entries
///     24 - 31  sector of this header     80 - 83  how many entries
///     32 - 39  sector of the other one   84 - 87  bytes of an entry
///                                        88 - 91  CRC-32 of the entries
struct GPTHeader: Equatable, Sendable {
  var otherSector: UInt64
  var lastUsableSector: UInt64
  var diskID: String?
  var entriesSector: UInt64
  var entryCount: Int
  var entryByteCount: Int
  var entriesChecksum: UInt32

  static let signature: UInt64 = 0x5452_4150_2049_4645
  private static let minimumByteCount = 92
  /// 8192 entries of the usual 128 bytes. There are 128 of them by rule; tools make some thousand if told so, Linux looks at
  /// the first 255.
  private static let maximumEntriesByteCount = MiB
  /// The specification has 128 times a power of two; Linux and blkid want 128.
  private static let entryByteCounts: Set<UInt32> = [128, 256, 512, 1024, 2048, 4096]

  /// - Parameters:
  ///   - bytes: a whole sector.
  ///   - sector: where it was read.
  /// - Throws: `notThisFormat` where there is no signature, `corrupt` for a header that cannot be believed.
  static func parse(_ bytes: [UInt8], at sector: UInt64) throws(EngineError) -> GPTHeader {
    try bytes.parsed { (span) throws(EngineError) in
      guard try span.littleEndian(UInt64.self, at: 0) == signature else {
        throw EngineError(.notThisFormat, "it has no signature")
      }
      let byteCount = Int(try span.littleEndian(UInt32.self, at: 12))
      guard byteCount >= minimumByteCount, byteCount <= bytes.count else {
        throw .corrupt("a header of \(byteCount) bytes is impossible")
      }
      var summed = Array(bytes[..<byteCount])
      for index in 16..<20 { summed[index] = 0 }
      guard CRC32.checksum(of: summed) == (try span.littleEndian(UInt32.self, at: 16)) else {
        throw .corrupt("its checksum is wrong")
      }
      let ownSector = try span.littleEndian(UInt64.self, at: 24)
      guard ownSector == sector else {
        throw .corrupt("it says that it is in sector \(ownSector)")
      }
      let (entryCount, entryByteCount) = (
        try span.littleEndian(UInt32.self, at: 80), try span.littleEndian(UInt32.self, at: 84)
      )
      guard entryByteCounts.contains(entryByteCount) else {
        throw .corrupt("entries of \(entryByteCount) bytes are impossible")
      }
      guard entryCount > 0, UInt64(entryCount) * UInt64(entryByteCount) <= maximumEntriesByteCount else {
        throw .corrupt("\(entryCount) entries are impossible")
      }
      return GPTHeader(
        otherSector: try span.littleEndian(UInt64.self, at: 32),
        lastUsableSector: try span.littleEndian(UInt64.self, at: 48),
        diskID: IdentifierText.guid(try span.bytes(in: 56..<72)),
        entriesSector: try span.littleEndian(UInt64.self, at: 72),
        entryCount: Int(entryCount), entryByteCount: Int(entryByteCount),
        entriesChecksum: try span.littleEndian(UInt32.self, at: 88))
    }
  }

  var entriesByteCount: Int { entryCount * entryByteCount }
}
