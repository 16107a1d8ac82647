/// The header, of which there are two: the valid one with the higher sequence number counts ([MS-VHDX] 2.2.2).
/// All numbers are little-endian.
///
///      0 -  3  "head"              48 - 63  log GUID, zero: the log is empty
///      4 -  7  CRC-32C of 4 KiB    64 - 65  log version, 0
///      8 - 15  sequence number     66 - 67  version, 1
///     16 - 31  file write GUID     68 - 71  log length
///     32 - 47  data write GUID     72 - 79  log offset
///                                  80 - 4095  reserved
struct VHDXHeader: Equatable, Sendable {
  var sequenceNumber: UInt64
  /// Another one with each session that changes the file at all.
  var fileWriteGuid: VHDXGuid
  /// Another one with each session that changes what a guest reads: differencing disks know their parent by it.
  var dataWriteGuid: VHDXGuid
  var logGuid = VHDXGuid.zero
  var logVersion: UInt16 = 0
  var version: UInt16 = 1
  var logLength: UInt32
  var logOffset: UInt64

  static let byteCount = 4096
  /// Where the two stand in the file.
  static let hostOffsets: [UInt64] = [64 * KiB, 128 * KiB]
  /// First byte that belongs to neither of them nor to the file identifier.
  static let sectionEnd = 192 * KiB
  private static let signature: UInt32 = 0x6461_6568

  /// Nil where the signature or the checksum is wrong, as after a torn write.
  static func parse(_ bytes: [UInt8]) throws(EngineError) -> VHDXHeader? {
    let checksum = VHDXChecksum.of(bytes)
    return try bytes.parsed { (span) throws(EngineError) in
      guard try span.littleEndian(UInt32.self, at: 0) == signature,
        try span.littleEndian(UInt32.self, at: 4) == checksum
      else { return nil }
      return VHDXHeader(
        sequenceNumber: try span.littleEndian(UInt64.self, at: 8),
        fileWriteGuid: try .parse(span, at: 16), dataWriteGuid: try .parse(span, at: 32),
        logGuid: try .parse(span, at: 48), logVersion: try span.littleEndian(UInt16.self, at: 64),
        version: try span.littleEndian(UInt16.self, at: 66),
        logLength: try span.littleEndian(UInt32.self, at: 68),
        logOffset: try span.littleEndian(UInt64.self, at: 72))
    }
  }

  /// The header that counts, and which of the two it is.
  static func readCurrent(from file: any ByteStore) throws(EngineError) -> (VHDXHeader, slot: Int) {
    let first = try parse(try file.bytes(at: hostOffsets[0], count: byteCount))
    let second = try parse(try file.bytes(at: hostOffsets[1], count: byteCount))
    switch (first, second) {
    case (let first?, nil): return (first, 0)
    case (nil, let second?): return (second, 1)
    case (let first?, let second?):
      if first.sequenceNumber != second.sequenceNumber {
        return first.sequenceNumber > second.sequenceNumber ? (first, 0) : (second, 1)
      }
      // Two of one number: fine only where it does not matter which is meant.
      if first == second { return (first, 0) }
    case (nil, nil): break
    }
    throw .corrupt("No valid VHDX header found")
  }

  func validate(fileByteCount: UInt64) throws(EngineError) {
    guard version == 1 else { throw .unsupported("Unsupported VHDX version \(version)") }
    guard logVersion == 0 else { throw .unsupported("Unsupported VHDX log version \(logVersion)") }
    guard logOffset >= MiB, logOffset.isAligned(to: MiB), UInt64(logLength).isAligned(to: MiB) else {
      throw .corrupt("The VHDX log is not in whole MiB behind the header")
    }
    guard logLength > 0 || !hasLog else { throw .corrupt("The VHDX log in use has no room") }
    let end = try logOffset.adding(UInt64(logLength), orCorrupt: "end of the VHDX log")
    guard end <= fileByteCount else { throw .corrupt("The VHDX log ends past the end of the file") }
  }

  /// Whether changes stand in the log that may be missing elsewhere.
  var hasLog: Bool { logGuid != .zero }
  var logRange: Range<UInt64> { logOffset..<logOffset + UInt64(logLength) }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: Self.signature)
    bytes.append(littleEndian: UInt32(0))
    bytes.append(littleEndian: sequenceNumber)
    fileWriteGuid.append(to: &bytes)
    dataWriteGuid.append(to: &bytes)
    logGuid.append(to: &bytes)
    bytes.append(littleEndian: logVersion)
    bytes.append(littleEndian: version)
    bytes.append(littleEndian: logLength)
    bytes.append(littleEndian: logOffset)
    bytes.pad(toMultipleOf: Self.byteCount)
    VHDXChecksum.set(in: &bytes)
    return bytes
  }
}

/// The checksum in bytes 4 - 7 of headers, region tables and log entries: CRC-32C of all bytes with itself as zeros.
enum VHDXChecksum {
  static func of(_ bytes: [UInt8]) -> UInt32 {
    guard bytes.count >= 8 else { return 0 }
    var bytes = bytes
    for index in 4..<8 { bytes[index] = 0 }
    return CRC32C.checksum(of: bytes)
  }

  static func set(in bytes: inout [UInt8]) {
    var field: [UInt8] = []
    field.append(littleEndian: of(bytes))
    bytes.replaceSubrange(4..<8, with: field)
  }
}

/// The first 64 KiB of the file: a signature, and who made it.
enum VHDXFileIdentifier {
  static let signature: [UInt8] = Array("vhdxfile".utf8)
  private static let creatorByteCount = 512

  static func serialised(creator: String) -> [UInt8] {
    var text: [UInt8] = []
    for unit in creator.utf16.prefix(creatorByteCount / 2) { text.append(littleEndian: unit) }
    return signature + text + [UInt8](repeating: 0, count: creatorByteCount - text.count)
  }
}
