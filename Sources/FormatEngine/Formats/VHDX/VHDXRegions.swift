/// The region table, of which there are two copies: where BAT and metadata stand ([MS-VHDX] 2.2.3).
///
///      0 -  3  "regi"                     then for each entry
///      4 -  7  CRC-32C of 64 KiB           0 - 15  GUID
///      8 - 11  entry count, 2047 at most  16 - 23  file offset, of whole MiB
///     12 - 15  reserved                   24 - 27  length, of whole MiB
///                                         28 - 31  bit 0: required
struct VHDXRegions: Equatable, Sendable {
  struct Entry: Equatable, Sendable {
    var guid: VHDXGuid
    var hostOffset: UInt64
    var length: UInt32
    var isRequired: Bool

    /// `validate` has seen that it does not overflow.
    var range: Range<UInt64> { hostOffset..<hostOffset + UInt64(length) }
  }

  var entries: [Entry]

  static let byteCount = 64 * 1024
  static let hostOffsets: [UInt64] = [192 * KiB, 256 * KiB]
  static let bat = VHDXGuid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08)
  static let metadata = VHDXGuid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e)
  private static let signature: UInt32 = 0x6967_6572
  private static let maximumEntryCount: UInt32 = 2047

  /// Nil where the signature or the checksum is wrong.
  static func parse(_ bytes: [UInt8]) throws(EngineError) -> VHDXRegions? {
    let checksum = VHDXChecksum.of(bytes)
    return try bytes.parsed { (span) throws(EngineError) in
      guard try span.littleEndian(UInt32.self, at: 0) == signature,
        try span.littleEndian(UInt32.self, at: 4) == checksum
      else { return nil }
      let count = try span.littleEndian(UInt32.self, at: 8)
      guard count <= maximumEntryCount else {
        throw .corrupt("The VHDX region table has \(count) entries, more than \(maximumEntryCount)")
      }
      var entries: [Entry] = []
      for index in 0..<Int(count) {
        let offset = 16 + 32 * index
        entries.append(
          Entry(
            guid: try .parse(span, at: offset),
            hostOffset: try span.littleEndian(UInt64.self, at: offset + 16),
            length: try span.littleEndian(UInt32.self, at: offset + 24),
            isRequired: try span.littleEndian(UInt32.self, at: offset + 28) & 1 != 0))
      }
      return VHDXRegions(entries: entries)
    }
  }

  /// The first copy that is whole.
  static func read(from file: any ByteStore) throws(EngineError) -> VHDXRegions {
    for hostOffset in hostOffsets {
      if let table = try parse(try file.bytes(at: hostOffset, count: byteCount)) { return table }
    }
    throw .corrupt("No valid VHDX region table found")
  }

  /// Where a copy is that is damaged, beside a whole one; nil where both are whole.
  static func damagedCopy(in file: any ByteStore) throws(EngineError) -> UInt64? {
    for hostOffset in hostOffsets {
      let bytes = try file.bytes(at: hostOffset, count: byteCount)
      if (try? parse(bytes)) == nil { return hostOffset }
    }
    return nil
  }

  /// Puts the whole copy in the place of the damaged one. Nothing that a child of the image goes by changes.
  static func mendCopy(at hostOffset: UInt64, in file: any ByteStore) throws(EngineError) {
    for other in hostOffsets where other != hostOffset {
      try file.write(bytes: try file.bytes(at: other, count: byteCount), at: hostOffset)
    }
    try file.flush()
  }

  /// Every region lies in whole MiB inside the file, no two overlap, and none is needed that nobody knows.
  func validate(log: Range<UInt64>, fileByteCount: UInt64) throws(EngineError) {
    var taken = [log]
    for entry in entries {
      guard entry.hostOffset >= MiB, entry.hostOffset.isAligned(to: MiB), entry.length > 0,
        UInt64(entry.length).isAligned(to: MiB)
      else { throw .corrupt("A VHDX region is not in whole MiB behind the header") }
      let end = try entry.hostOffset.adding(UInt64(entry.length), orCorrupt: "end of a VHDX region")
      let isKnown = entry.guid == Self.bat || entry.guid == Self.metadata
      guard end <= fileByteCount || !isKnown else {
        throw .corrupt("A VHDX region ends past the end of the file")
      }
      for other in taken where entry.hostOffset < other.upperBound && other.lowerBound < end {
        throw .corrupt(
          "VHDX region \(entry.hostOffset)-\(end) overlaps with region \(other.lowerBound)-\(other.upperBound)"
        )
      }
      taken.append(entry.range)
      guard isKnown || !entry.isRequired else {
        throw .unsupported("The image needs VHDX region \(entry.guid), which is unknown")
      }
    }
    _ = try region(Self.bat, "BAT")
    _ = try region(Self.metadata, "metadata")
  }

  /// The one region with that GUID. Overlaps, and so doublets, are found by `validate`; empty ones are none.
  func region(_ guid: VHDXGuid, _ what: String) throws(EngineError) -> Range<UInt64> {
    let found = entries.filter { $0.guid == guid }
    guard found.count == 1 else { throw .corrupt("The image has \(found.count) VHDX \(what) regions") }
    return found[0].range
  }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: Self.signature)
    bytes.append(littleEndian: UInt32(0))
    bytes.append(littleEndian: UInt32(entries.count))
    bytes.append(littleEndian: UInt32(0))
    for entry in entries {
      entry.guid.append(to: &bytes)
      bytes.append(littleEndian: entry.hostOffset)
      bytes.append(littleEndian: entry.length)
      bytes.append(littleEndian: UInt32(entry.isRequired ? 1 : 0))
    }
    bytes.pad(toMultipleOf: Self.byteCount)
    VHDXChecksum.set(in: &bytes)
    return bytes
  }
}
