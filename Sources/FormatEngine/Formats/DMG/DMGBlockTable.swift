/// A block table: the chunks of one partition, or of a stretch between partitions. All numbers are big-endian.
///
/// | bytes    | field                                                    |
/// |----------|----------------------------------------------------------|
/// | 0..3     | "mish"                                                   |
/// | 4..7     | version, 1                                               |
/// | 8..15    | first sector of the disk                                 |
/// | 16..23   | sectors                                                  |
/// | 24..31   | where in the data fork its chunks' offsets count from    |
/// | 64..199  | checksum of what the chunks unpack to                    |
/// | 200..203 | number of chunks                                         |
/// | 204..    | the chunks, 40 bytes each                                |
///
/// A chunk:
///
/// | bytes  | field                                            |
/// |--------|--------------------------------------------------|
/// | 0..3   | kind                                             |
/// | 4..7   | comment                                          |
/// | 8..15  | first sector, counted from the table's           |
/// | 16..23 | sectors                                          |
/// | 24..31 | offset                                           |
/// | 32..39 | bytes                                            |
struct DMGBlockTable: Sendable {
  private static let magic: UInt32 = 0x6d69_7368
  private static let headerByteCount = 204
  private static let chunkByteCount = 40

  var checksum: DMGChecksum
  /// Those that say where sectors are, in the table's order.
  var chunks: [DMGChunk] = []

  /// Reads a table. Nil for a resource of another kind, which qemu-img passes over. `number`: of the table, for its chunks.
  static func parse(_ span: RawSpan, number: UInt32, dataFork: DMGTrailer.Part) throws(EngineError)
    -> DMGBlockTable?
  {
    guard span.byteCount >= 4, try span.bigEndian(UInt32.self, at: 0) == magic else { return nil }
    let firstSector = try span.bigEndian(UInt64.self, at: 8)
    let base = try dataFork.offset.adding(
      try span.bigEndian(UInt64.self, at: 24), orCorrupt: "Data offset of block table \(number)")
    let count = Int(try span.bigEndian(UInt32.self, at: 200))
    guard count <= (span.byteCount - headerByteCount) / chunkByteCount else {
      throw .corrupt("Block table \(number) has no room for its \(count) chunks")
    }
    var table = DMGBlockTable(checksum: try DMGChecksum(span, at: 64))
    table.chunks.reserveCapacity(count)
    for index in 0..<count {
      let start = headerByteCount + index * chunkByteCount
      let kind = DMGChunk.Kind(rawValue: try span.bigEndian(UInt32.self, at: start))
      if kind == .terminator { break }
      let sectorCount = try span.bigEndian(UInt64.self, at: start + 16)
      if kind == .comment || sectorCount == 0 { continue }
      let what = "Chunk \(index) of block table \(number)"
      let sector = try firstSector.adding(try span.bigEndian(UInt64.self, at: start + 8), orCorrupt: what)
      let chunk = DMGChunk(
        firstSector: sector, sectorCount: sectorCount,
        hostOffset: try base.adding(try span.bigEndian(UInt64.self, at: start + 24), orCorrupt: what),
        byteCount: try span.bigEndian(UInt64.self, at: start + 32), kind: kind, table: number)
      try chunk.validate(index: index, what)
      table.chunks.append(chunk)
    }
    return table
  }
}

/// A run of sectors, and where in the file its bytes are.
struct DMGChunk: BitwiseCopyable, Equatable, Sendable {
  struct Kind: BitwiseCopyable, Equatable, Sendable {
    var rawValue: UInt32

    static let zeros = Kind(rawValue: 0)
    static let raw = Kind(rawValue: 1)
    /// Free room of a file system: reads as zeros, and no checksum counts it.
    static let ignored = Kind(rawValue: 2)
    static let comment = Kind(rawValue: 0x7fff_fffe)
    static let adc = Kind(rawValue: 0x8000_0004)
    static let zlib = Kind(rawValue: 0x8000_0005)
    static let bzip2 = Kind(rawValue: 0x8000_0006)
    static let lzfse = Kind(rawValue: 0x8000_0007)
    static let lzma = Kind(rawValue: 0x8000_0008)
    static let terminator = Kind(rawValue: 0xffff_ffff)

    var isZeros: Bool { self == .zeros || self == .ignored }
    /// Or unknown: then only reading tells.
    var isPacked: Bool { !isZeros && self != .raw }
  }

  var firstSector: UInt64
  var sectorCount: UInt64
  var hostOffset: UInt64
  /// In the file.
  var byteCount: UInt64
  var kind: Kind
  /// The number of its block table.
  var table: UInt32

  /// A packed chunk is unpacked whole: at most 64 MiB, packed or not, as in qemu-img. hdiutil makes chunks of 256 KiB
  /// to 8 MiB.
  static let maximumByteCount = 64 * MiB

  var guestStart: UInt64 { firstSector * 512 }
  var guestEnd: UInt64 { (firstSector + sectorCount) * 512 }

  /// Afterwards no sum of its numbers overflows.
  fileprivate func validate(index: Int, _ what: String) throws(EngineError) {
    let end = try firstSector.adding(sectorCount, orCorrupt: what)
    guard end <= maximumFileOffset / 512, byteCount <= maximumFileOffset,
      hostOffset <= maximumFileOffset - byteCount
    else { throw .corrupt("\(what) is out of range") }
    guard kind.isPacked else { return }
    let maximumSectors = Self.maximumByteCount / 512
    guard sectorCount <= maximumSectors else {
      throw .corrupt("sector count \(sectorCount) for chunk \(index) is larger than max (\(maximumSectors))")
    }
    guard byteCount <= Self.maximumByteCount else {
      throw .corrupt("length \(byteCount) for chunk \(index) is larger than max (\(Self.maximumByteCount))")
    }
  }
}
