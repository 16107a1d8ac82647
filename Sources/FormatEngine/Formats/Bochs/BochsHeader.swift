/// The header of a redolog. All numbers are little-endian.
///
/// | bytes   | field                                                          |
/// |---------|----------------------------------------------------------------|
/// | 0..31   | "Bochs Virtual HD Image", ended by a NUL                       |
/// | 32..47  | type: "Redolog"                                                |
/// | 48..63  | subtype: "Growing" (also "Undoable", "Volatile")               |
/// | 64..67  | version: 0x10000 or 0x20000                                    |
/// | 68..71  | bytes of the header                                            |
/// | 72..75  | entries of the catalog                                         |
/// | 76..79  | bytes of the bitmap in front of each extent                    |
/// | 80..83  | guest bytes of an extent                                       |
/// | 84..91  | version 1: bytes of the disk                                   |
/// | 84..87  | version 2: a time stamp                                        |
/// | 88..95  | version 2: bytes of the disk                                   |
struct BochsHeader: Equatable, Sendable {
  static let byteCount = 512
  private static let magic = "Bochs Virtual HD Image"
  private static let type = "Redolog"
  private static let subtype = "Growing"
  private static let versions: Set<UInt32> = [0x10000, 0x20000]

  /// Where the catalog begins.
  var headerByteCount: UInt32
  var catalogCount: UInt32
  var bitmapByteCount: UInt32
  var extentByteCount: UInt32
  /// In whole sectors.
  var virtualSize: UInt64

  /// Whether a file begins as one that this format reads: a disk of its own, not changes to another one.
  static func isGrowingRedolog(_ head: RawSpan) throws(EngineError) -> Bool {
    guard try name(in: head, at: 0..<32) == magic, try name(in: head, at: 32..<48) == type,
      try name(in: head, at: 48..<64) == subtype
    else { return false }
    return versions.contains(try head.littleEndian(UInt32.self, at: 64))
  }

  private static func name(in head: RawSpan, at range: Range<Int>) throws(EngineError) -> String {
    String(decoding: try head.bytes(in: range).prefix { $0 != 0 }, as: UTF8.self)
  }

  static func parse(_ span: RawSpan) throws(EngineError) -> BochsHeader {
    guard try isGrowingRedolog(span) else {
      throw EngineError(.notThisFormat, "Image not in Bochs format")
    }
    let isOld = try span.littleEndian(UInt32.self, at: 64) == 0x10000
    let header = BochsHeader(
      headerByteCount: try span.littleEndian(UInt32.self, at: 68),
      catalogCount: try span.littleEndian(UInt32.self, at: 72),
      bitmapByteCount: try span.littleEndian(UInt32.self, at: 76),
      extentByteCount: try span.littleEndian(UInt32.self, at: 80),
      virtualSize: try span.littleEndian(UInt64.self, at: isOld ? 84 : 88).aligned(downTo: 512))
    try header.validate()
    return header
  }

  /// Every number against its range and against the others; the words are qemu-img's.
  private func validate() throws(EngineError) {
    // 4 MiB of table: with the largest extents, 8 TiB of disk. bximage makes far smaller ones.
    guard catalogCount <= 0x10_0000 else { throw .corrupt("Catalog size is too large") }
    guard extentByteCount >= 512 else { throw .corrupt("Extent size must be at least 512") }
    guard extentByteCount.nonzeroBitCount == 1 else {
      throw .corrupt("Extent size \(extentByteCount) is not a power of two")
    }
    // What bximage makes for the largest disks.
    guard extentByteCount <= 0x80_0000 else {
      throw .corrupt("Extent size \(extentByteCount) is too large")
    }
    let extentCount = virtualSize.dividedRoundingUp(by: UInt64(extentByteCount))
    guard UInt64(catalogCount) >= extentCount else {
      throw .corrupt("Catalog size is too small for this disk size")
    }
    guard headerByteCount >= 96 else { throw .corrupt("Catalog begins inside of the header") }
    let neededBits = UInt64(extentByteCount) / 512
    // A bitmap beyond 1 MiB would be 512 times what the largest extent needs.
    guard bitmapByteCount > 0, bitmapByteCount <= 1 << 20,
      UInt64(bitmapByteCount).aligned(upTo: 512) * 8 >= neededBits
    else { throw .corrupt("Bitmap of \(bitmapByteCount) bytes does not fit the extent size") }
  }
}

/// Where things are in a redolog.
struct BochsGeometry: Sendable {
  /// Guest bytes of an extent, a power of two.
  let extentSize: UInt64
  /// Bytes in front of each extent, whole sectors.
  let bitmapSize: UInt64
  /// Where the first extent's bitmap is.
  let dataOffset: UInt64
  static let sectorSize: UInt64 = 512

  init(_ header: BochsHeader) {
    extentSize = UInt64(header.extentByteCount)
    bitmapSize = UInt64(header.bitmapByteCount).aligned(upTo: Self.sectorSize)
    dataOffset = UInt64(header.headerByteCount) + 4 * UInt64(header.catalogCount)
  }

  /// Where the bitmap of a catalog's entry is; its extent follows it. Below 2^57 for every entry.
  func bitmapOffset(of entry: UInt32) -> UInt64 { dataOffset + UInt64(entry) * (bitmapSize + extentSize) }
}
