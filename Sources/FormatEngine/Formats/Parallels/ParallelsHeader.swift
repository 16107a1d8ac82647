/// The first 64 bytes of an expandable image (parallels.rst, "Header"). All numbers are little-endian.
///
///     0-15   magic: "WithoutFreeSpace", or "WithouFreSpacExt" for the extended dialect
///     16-19  version, 2
///     20-23  heads
///     24-27  cylinders
///     28-31  sectors of a cluster ("tracks")
///     32-35  entries of the BAT
///     36-43  sectors of the disk; the plain dialect uses the lower half only
///     44-47  in use
///     48-51  sector at which the data area begins
///     52-55  flags
///     56-63  sector of the format extension, 0 for none
struct ParallelsHeader: Equatable {
  enum Dialect: Equatable {
    /// BAT entries count sectors.
    case plain
    /// BAT entries count clusters.
    case extended
  }

  static let byteCount = 64
  static let version: UInt32 = 2
  /// Bytes from "in use" to the end: what changes while an image is written to.
  static let changingOffset: UInt64 = 44
  private static let plainMagic = Array("WithoutFreeSpace".utf8)
  private static let extendedMagic = Array("WithouFreSpacExt".utf8)

  var dialect: Dialect
  var heads: UInt32
  var cylinders: UInt32
  var clusterSectors: UInt32
  var entryCount: UInt32
  var sectorCount: UInt64
  var inUse: UInt32
  var dataSector: UInt32
  var flags: UInt32
  var extensionSector: UInt64

  /// "Yeno" as it would be read: somebody writes to the image, or did when the power failed.
  static let inUseMark: UInt32 = 0x746f_6e59
  /// "v2.1": closed by a program that knows format extensions.
  static let closedMark: UInt32 = 0x312e_3276
  /// Set while the BAT has no entries; cleared before there are any.
  static let emptyFlag: UInt32 = 1

  /// 2^31 bytes / 4: a BAT of 2 GiB, which is 512 TiB of disk in clusters of 1 MiB. QEMU's limit.
  static let maximumEntryCount = UInt32(Int32.max) / 4
  /// Clusters below 2 GiB, so that no offset of an entry leaves 2^63. QEMU's limit; real ones are 1 MiB.
  static let maximumClusterSectors = UInt32(Int32.max) / 513

  /// The dialect of a file that begins with `head`, nil where it is no image of this format.
  static func dialect(of head: RawSpan) -> Dialect? {
    guard let magic = try? head.bytes(in: 0..<16), let version = try? head.littleEndian(UInt32.self, at: 16),
      version == Self.version
    else { return nil }
    return magic == plainMagic ? .plain : magic == extendedMagic ? .extended : nil
  }

  static func read(from file: any ByteStore) throws(EngineError) -> ParallelsHeader {
    let count = Int(min(UInt64(byteCount), try file.byteCount()))
    let header = try file.bytes(at: 0, count: count).parsed { (span) throws(EngineError) in try parse(span) }
    try header.validate()
    return header
  }

  private static func parse(_ span: RawSpan) throws(EngineError) -> ParallelsHeader {
    guard let dialect = dialect(of: span) else {
      throw EngineError(.notThisFormat, "Image not in Parallels format")
    }
    let sectors = try span.littleEndian(UInt64.self, at: 36)
    return ParallelsHeader(
      dialect: dialect,
      heads: try span.littleEndian(UInt32.self, at: 20),
      cylinders: try span.littleEndian(UInt32.self, at: 24),
      clusterSectors: try span.littleEndian(UInt32.self, at: 28),
      entryCount: try span.littleEndian(UInt32.self, at: 32),
      sectorCount: dialect == .plain ? sectors & UInt64(UInt32.max) : sectors,
      inUse: try span.littleEndian(UInt32.self, at: 44),
      dataSector: try span.littleEndian(UInt32.self, at: 48),
      flags: try span.littleEndian(UInt32.self, at: 52),
      extensionSector: try span.littleEndian(UInt64.self, at: 56))
  }

  /// What reading relies on. Where the data begin matters only to those who write (`ParallelsSurvey`).
  private func validate() throws(EngineError) {
    guard clusterSectors > 0 else { throw .corrupt("Invalid image: Zero sectors per track") }
    guard clusterSectors <= Self.maximumClusterSectors else {
      throw .corrupt("Invalid image: Too big cluster")
    }
    guard entryCount <= Self.maximumEntryCount else { throw .corrupt("Catalog too large") }
    guard sectorCount <= maximumFileOffset / 512 else {
      throw .corrupt("Invalid image: A disk of \(sectorCount) sectors is too large")
    }
  }

  func serialised() -> [UInt8] {
    var bytes = dialect == .plain ? Self.plainMagic : Self.extendedMagic
    for field in [Self.version, heads, cylinders, clusterSectors, entryCount] {
      bytes.append(littleEndian: field)
    }
    bytes.append(littleEndian: sectorCount)
    for field in [inUse, dataSector, flags] { bytes.append(littleEndian: field) }
    bytes.append(littleEndian: extensionSector)
    return bytes
  }

  /// Writes all of it: one sector, so that a power cut leaves the old one or this one.
  func write(to file: any ByteStore) throws(EngineError) {
    try file.write(bytes: serialised(), at: 0)
  }

  var virtualSize: UInt64 { sectorCount * 512 }
  var isInUse: Bool { inUse == Self.inUseMark }
  var geometry: ParallelsGeometry { ParallelsGeometry(self) }
}
