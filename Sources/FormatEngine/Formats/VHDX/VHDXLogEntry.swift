/// The head of an entry of the log ([MS-VHDX] 2.3.1). An entry is whole sectors of 4 KiB: this and the
/// descriptors, then a sector for each data descriptor.
///
///      0 -  3  "loge"              24 - 27  descriptor count
///      4 -  7  CRC-32C of all      28 - 31  reserved
///      8 - 11  length              32 - 47  log GUID
///     12 - 15  tail                48 - 55  flushed file offset
///     16 - 23  sequence number     56 - 63  last file offset
struct VHDXLogEntryHeader: Equatable, Sendable {
  var checksum: UInt32 = 0
  var length: UInt32
  /// Where in the log the oldest entry begins whose changes may not be in their places yet.
  var tail: UInt32
  var sequenceNumber: UInt64
  var descriptorCount: UInt32
  var logGuid: VHDXGuid
  /// The file was at least so long, on disk, before the entry was written.
  var flushedFileOffset: UInt64
  /// Everything in the file ends before it.
  var lastFileOffset: UInt64

  static let byteCount = 64
  static let sectorByteCount = 4096
  private static let signature: UInt32 = 0x6567_6f6c

  /// Nil where no entry begins. `log`: its bytes.
  static func parse(_ bytes: RawSpan, at offset: Int, logByteCount: UInt64) throws(EngineError)
    -> VHDXLogEntryHeader?
  {
    guard try bytes.littleEndian(UInt32.self, at: offset) == signature else { return nil }
    let header = VHDXLogEntryHeader(
      checksum: try bytes.littleEndian(UInt32.self, at: offset + 4),
      length: try bytes.littleEndian(UInt32.self, at: offset + 8),
      tail: try bytes.littleEndian(UInt32.self, at: offset + 12),
      sequenceNumber: try bytes.littleEndian(UInt64.self, at: offset + 16),
      descriptorCount: try bytes.littleEndian(UInt32.self, at: offset + 24),
      logGuid: try .parse(bytes, at: offset + 32),
      flushedFileOffset: try bytes.littleEndian(UInt64.self, at: offset + 48),
      lastFileOffset: try bytes.littleEndian(UInt64.self, at: offset + 56))
    let sector = UInt64(sectorByteCount)
    guard header.length > 0, UInt64(header.length).isAligned(to: sector),
      UInt64(header.length) <= logByteCount, UInt64(header.tail).isAligned(to: sector),
      UInt64(header.tail) < logByteCount, header.sequenceNumber > 0,
      header.descriptorSectors <= header.length / UInt32(sectorByteCount)
    else { return nil }
    return header
  }

  /// Sectors that head and descriptors take.
  var descriptorSectors: UInt32 {
    let bytes = UInt64(Self.byteCount) + UInt64(descriptorCount) * UInt64(VHDXLogDescriptor.byteCount)
    return UInt32(bytes.dividedRoundingUp(by: UInt64(Self.sectorByteCount)))
  }

  func append(to bytes: inout [UInt8]) {
    bytes.append(littleEndian: Self.signature)
    bytes.append(littleEndian: checksum)
    bytes.append(littleEndian: length)
    bytes.append(littleEndian: tail)
    bytes.append(littleEndian: sequenceNumber)
    bytes.append(littleEndian: descriptorCount)
    bytes.append(littleEndian: UInt32(0))
    logGuid.append(to: &bytes)
    bytes.append(littleEndian: flushedFileOffset)
    bytes.append(littleEndian: lastFileOffset)
  }
}

/// What an entry changes: zeros, or 4 KiB of data.
///
///     "desc":  4 -  7  last 4 bytes of the data      "zero":  4 -  7  reserved
///              8 - 15  its first 8 bytes                      8 - 15  length
///                        both: 16 - 23  file offset, 24 - 31  sequence number
struct VHDXLogDescriptor: Equatable, Sendable {
  enum Content: Equatable, Sendable {
    case zeros(UInt64)
    case data(leading: UInt64, trailing: UInt32)
  }

  var content: Content
  var hostOffset: UInt64
  var sequenceNumber: UInt64

  static let byteCount = 32
  private static let dataSignature: UInt32 = 0x6373_6564
  private static let zeroSignature: UInt32 = 0x6f72_657a

  /// Bytes of the file that it changes.
  var length: UInt64 {
    if case .zeros(let length) = content { return length }
    return UInt64(VHDXLogEntryHeader.sectorByteCount)
  }

  var hasData: Bool { if case .data = content { true } else { false } }

  /// Nil for what is none.
  static func parse(_ bytes: RawSpan, at offset: Int) throws(EngineError) -> VHDXLogDescriptor? {
    let content: Content
    switch try bytes.littleEndian(UInt32.self, at: offset) {
    case dataSignature:
      content = .data(
        leading: try bytes.littleEndian(UInt64.self, at: offset + 8),
        trailing: try bytes.littleEndian(UInt32.self, at: offset + 4))
    case zeroSignature: content = .zeros(try bytes.littleEndian(UInt64.self, at: offset + 8))
    default: return nil
    }
    return VHDXLogDescriptor(
      content: content, hostOffset: try bytes.littleEndian(UInt64.self, at: offset + 16),
      sequenceNumber: try bytes.littleEndian(UInt64.self, at: offset + 24))
  }

  func append(to bytes: inout [UInt8]) {
    switch content {
    case .data(let leading, let trailing):
      bytes.append(littleEndian: Self.dataSignature)
      bytes.append(littleEndian: trailing)
      bytes.append(littleEndian: leading)
    case .zeros(let length):
      bytes.append(littleEndian: Self.zeroSignature)
      bytes.append(littleEndian: UInt32(0))
      bytes.append(littleEndian: length)
    }
    bytes.append(littleEndian: hostOffset)
    bytes.append(littleEndian: sequenceNumber)
  }
}

/// A sector of data in an entry: its number in halves where the descriptor has the data's own bytes.
///
///      0 -  3  "data"    4 -  7  upper half    8 - 4091  data    4092 - 4095  lower half
enum VHDXLogDataSector {
  private static let signature: UInt32 = 0x6174_6164

  static func isValid(_ bytes: RawSpan, at offset: Int, sequenceNumber: UInt64) throws(EngineError) -> Bool {
    let upper = try bytes.littleEndian(UInt32.self, at: offset + 4)
    let lower = try bytes.littleEndian(UInt32.self, at: offset + 4092)
    return try bytes.littleEndian(UInt32.self, at: offset) == signature
      && UInt64(upper) << 32 | UInt64(lower) == sequenceNumber
  }

  /// The 4 KiB that a sector of the log stands for.
  static func restored(_ sector: [UInt8], leading: UInt64, trailing: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: leading)
    bytes += sector[8..<4092]
    bytes.append(littleEndian: trailing)
    return bytes
  }

  /// Appends the sector that stands for `page`, and gives its descriptor.
  static func append(_ page: [UInt8], hostOffset: UInt64, sequenceNumber: UInt64, to bytes: inout [UInt8])
    throws(EngineError) -> VHDXLogDescriptor
  {
    bytes.append(littleEndian: signature)
    bytes.append(littleEndian: UInt32(sequenceNumber >> 32))
    bytes += page[8..<4092]
    bytes.append(littleEndian: UInt32(truncatingIfNeeded: sequenceNumber))
    return try page.parsed { (span) throws(EngineError) in
      VHDXLogDescriptor(
        content: .data(
          leading: try span.littleEndian(UInt64.self, at: 0),
          trailing: try span.littleEndian(UInt32.self, at: 4092)),
        hostOffset: hostOffset, sequenceNumber: sequenceNumber)
    }
  }
}
