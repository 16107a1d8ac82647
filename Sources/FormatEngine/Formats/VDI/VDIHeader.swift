/// What a VDI image is, as its header says.
enum VDIImageType: UInt32, Sendable {
  /// Blocks get room when they are written.
  case dynamic = 1
  /// Every block has room, in order.
  case fixed = 2
  /// Changes that may be thrown away; like `differencing` in all that is stored.
  case undo = 3
  /// What is not stored is read from the parent.
  case differencing = 4

  var hasParent: Bool { self == .undo || self == .differencing }
}

/// The header of version 1.1, little-endian (VirtualBox's forum, "All about VDIs").
///
/// | bytes     | field                                                      |
/// |-----------|------------------------------------------------------------|
/// | 0-63      | text for people who look into the file                     |
/// | 64-67     | signature, 0xbeda107f                                      |
/// | 68-71     | version, minor and major half                              |
/// | 72-75     | bytes of the header from here on                           |
/// | 76-79     | image type                                                 |
/// | 80-83     | flags                                                      |
/// | 84-339    | description                                                |
/// | 340-343   | host offset of the block map                               |
/// | 344-347   | host offset of the first block                             |
/// | 348-363   | cylinders, heads, sectors, bytes in a sector (PC geometry) |
/// | 364-367   | unused                                                     |
/// | 368-375   | bytes of the disk                                          |
/// | 376-379   | bytes in a block                                           |
/// | 380-383   | bytes of further data before each block                    |
/// | 384-387   | blocks of the disk                                         |
/// | 388-391   | blocks that have room in the file                          |
/// | 392-407   | UUID of the image                                          |
/// | 408-423   | UUID of its last change                                    |
/// | 424-439   | UUID of the parent                                         |
/// | 440-455   | UUID of the parent's last change                           |
/// | 456-471   | the same geometry for BIOSes (headers of 400 bytes)        |
struct VDIHeader: Equatable, Sendable {
  static let signature: UInt32 = 0xbeda_107f
  static let version: UInt32 = 0x0001_0001
  static let byteCount = 512
  static let defaultBlockSize: UInt64 = MiB
  /// The block map of as many entries has just under 2 GiB; QEMU has the same limit.
  static let maximumBlockCount: UInt64 = (0x7fff_ffff - 511) / 4
  static let maximumVirtualSize = maximumBlockCount * defaultBlockSize

  var version: UInt32
  var type: UInt32
  var mapOffset: UInt32
  var dataOffset: UInt32
  var sectorSize: UInt32
  /// Bytes as recorded; some programs give a size that is no multiple of 512.
  var diskSize: UInt64
  var blockSize: UInt32
  var blockExtra: UInt32
  var blockCount: UInt32
  var allocatedBlockCount: UInt32
  var identifier: VDIIdentifier
  var modification: VDIIdentifier
  var parent: VDIIdentifier
  var parentModification: VDIIdentifier

  static func hasSignature(_ head: RawSpan) -> Bool {
    (try? head.littleEndian(UInt32.self, at: 64)) == signature
  }

  static func parse(_ head: RawSpan) throws(EngineError) -> VDIHeader {
    let signature = try head.littleEndian(UInt32.self, at: 64)
    guard signature == Self.signature else {
      let text = String(signature, radix: 16)
      let padding = String(repeating: "0", count: 8 - text.count)
      throw EngineError(.notThisFormat, "Image not in VDI format (bad signature \(padding)\(text))")
    }
    return VDIHeader(
      version: try head.littleEndian(UInt32.self, at: 68),
      type: try head.littleEndian(UInt32.self, at: 76),
      mapOffset: try head.littleEndian(UInt32.self, at: 340),
      dataOffset: try head.littleEndian(UInt32.self, at: 344),
      sectorSize: try head.littleEndian(UInt32.self, at: 360),
      diskSize: try head.littleEndian(UInt64.self, at: 368),
      blockSize: try head.littleEndian(UInt32.self, at: 376),
      blockExtra: try head.littleEndian(UInt32.self, at: 380),
      blockCount: try head.littleEndian(UInt32.self, at: 384),
      allocatedBlockCount: try head.littleEndian(UInt32.self, at: 388),
      identifier: try VDIIdentifier(head, at: 392), modification: try VDIIdentifier(head, at: 408),
      parent: try VDIIdentifier(head, at: 424), parentModification: try VDIIdentifier(head, at: 440))
  }

  /// Puts the fields into `head`, which has `byteCount` bytes; all that is not a field stays.
  func put(into head: inout [UInt8]) {
    for (value, offset) in [
      (version, 68), (type, 76), (mapOffset, 340), (dataOffset, 344), (sectorSize, 360), (blockSize, 376),
      (blockExtra, 380), (blockCount, 384), (allocatedBlockCount, 388),
    ] { head.put(bigEndian: value.byteSwapped, at: offset) }
    head.put(bigEndian: diskSize.byteSwapped, at: 368)
    for (uuid, offset) in [(identifier, 392), (modification, 408), (parent, 424), (parentModification, 440)] {
      head.replaceSubrange(offset..<offset + VDIIdentifier.byteCount, with: uuid.bytes)
    }
  }
}
