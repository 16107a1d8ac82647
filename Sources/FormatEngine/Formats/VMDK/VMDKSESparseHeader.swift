/// The two headers of a space-efficient sparse extent (type SESPARSE), which newer ESX servers have for what a snapshot
/// changes. Little-endian; all numbers have 64 bits, and places and sizes are in sectors. VMware describes them nowhere: the
/// facts are those that QEMU and dissect.hypervisor agree on.
///
/// The constant header, in the first sector:
///
/// | bytes    | field                    | meaning                                                   |
/// |----------|--------------------------|-----------------------------------------------------------|
/// | 0..7     | magic                    | 0xcafebabe                                                |
/// | 8..15    | version                  | 2.1: 0x200000001                                          |
/// | 16..23   | capacity                 | guest sectors                                             |
/// | 24..31   | grain size               | 8                                                         |
/// | 32..39   | grain table size         | 64                                                        |
/// | 40..47   | flags                    | 0                                                         |
/// | 48..79   | reserved                 | zeros                                                     |
/// | 80..95   | volatile header          | place and size                                            |
/// | 96..127  | journal header, journal  | the same                                                  |
/// | 128..143 | grain directory          | the same                                                  |
/// | 144..159 | grain tables             | the same: all tables lie side by side                     |
/// | 160..191 | free bitmap, back map    | the same: for writers                                     |
/// | 192..207 | grains                   | the same                                                  |
///
/// The volatile header, where the constant one says:
///
/// | bytes  | field             | meaning                                             |
/// |--------|-------------------|-----------------------------------------------------|
/// | 0..7   | magic             | 0xcafecafe                                          |
/// | 8..23  |                   | for writers                                         |
/// | 24..31 | replay journal    | not 0: the journal has changes that tables lack     |
struct VMDKSESparseHeader: Equatable, Sendable {
  var capacity: UInt64
  var volatileHeaderOffset: UInt64
  var directoryOffset: UInt64
  var directorySectors: UInt64
  var tablesOffset: UInt64
  var tablesSectors: UInt64
  var grainsOffset: UInt64
  /// Changes are in the journal only.
  private(set) var needsReplay = false

  static let magic: UInt64 = 0xcafe_babe
  static let volatileMagic: UInt64 = 0xcafe_cafe
  static let version: UInt64 = 0x2_0000_0001
  static let grainSectors: UInt64 = 8
  static let tableSectors: UInt64 = 64

  /// Both headers, checked.
  static func read(from file: any ByteStore) throws(EngineError) -> VMDKSESparseHeader {
    let sector = Int(VMDKExtentLine.sectorByteCount)
    var header = try file.bytes(at: 0, count: sector).parsed { (span) throws(EngineError) in
      try VMDKSESparseHeader(span)
    }
    try header.validate()
    let place = header.volatileHeaderOffset * VMDKExtentLine.sectorByteCount
    header.needsReplay = try file.bytes(at: place, count: sector).parsed { (span) throws(EngineError) in
      let magic = try span.littleEndian(UInt64.self, at: 0)
      guard magic == Self.volatileMagic else {
        throw .corrupt("Bad volatile header magic: \(Self.digits(magic))")
      }
      return try span.littleEndian(UInt64.self, at: 24) != 0
    }
    return header
  }

  /// Texts are QEMU's.
  private init(_ bytes: RawSpan) throws(EngineError) {
    func field(_ offset: Int) throws(EngineError) -> UInt64 {
      try bytes.littleEndian(UInt64.self, at: offset)
    }
    let (magic, version, flags) = (try field(0), try field(8), try field(40))
    guard magic == Self.magic else {
      throw .corrupt("Bad const header magic: \(Self.digits(magic))")
    }
    guard version == Self.version else {
      throw .unsupported("Unsupported version: \(Self.digits(version))")
    }
    let (grain, table) = (try field(24), try field(32))
    guard grain == Self.grainSectors else { throw .unsupported("Unsupported grain size: \(grain)") }
    guard table == Self.tableSectors else { throw .unsupported("Unsupported grain table size: \(table)") }
    guard flags == 0 else { throw .unsupported("Unsupported flags: \(Self.digits(flags))") }
    let reserved = [try field(48), try field(56), try field(64), try field(72)]
    guard reserved.allSatisfy({ $0 == 0 }) else {
      let digits = reserved.map { "\(Self.digits($0))" }.joined(separator: " ")
      throw .unsupported("Unsupported reserved bits: \(digits)")
    }
    capacity = try field(16)
    volatileHeaderOffset = try field(80)
    directoryOffset = try field(128)
    directorySectors = try field(136)
    tablesOffset = try field(144)
    tablesSectors = try field(152)
    grainsOffset = try field(192)
  }

  /// As QEMU prints them.
  private static func digits(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return "0x" + String(repeating: "0", count: 16 - digits.utf8.count) + digits
  }

  /// 64 TiB, the largest disk that VMware makes.
  static let maximumCapacity: UInt64 = 64 << 40 / VMDKExtentLine.sectorByteCount

  private func validate() throws(EngineError) {
    let limit = maximumFileOffset / VMDKExtentLine.sectorByteCount
    let places = [
      volatileHeaderOffset, directoryOffset, directorySectors, tablesOffset, tablesSectors, grainsOffset,
    ]
    guard places.allSatisfy({ $0 <= limit / 2 }) else {
      throw .corrupt("A part of the seSparse extent lies at a place that no file has")
    }
    guard capacity <= Self.maximumCapacity else { throw .corrupt("L1 size too big") }
    let tableCount = capacity.dividedRoundingUp(by: VMDKSESparseGeometry.grainsInTable * Self.grainSectors)
    guard tableCount <= directorySectors * VMDKExtentLine.sectorByteCount / 8 else {
      throw .corrupt("The grain directory of the seSparse extent is too small for the disk")
    }
  }
}

/// Where what is in a space-efficient sparse extent, in bytes.
struct VMDKSESparseGeometry: Equatable, Sendable {
  /// Guest bytes of the extent.
  var byteCount: UInt64
  var directoryOffset: UInt64
  var tablesOffset: UInt64
  var tablesByteCount: UInt64
  var grainsOffset: UInt64

  static let grainsInTable: UInt64 = VMDKSESparseHeader.tableSectors * VMDKExtentLine.sectorByteCount / 8
  static let grainSize: UInt64 = VMDKSESparseHeader.grainSectors * VMDKExtentLine.sectorByteCount
  static let tableByteCount: UInt64 = VMDKSESparseHeader.tableSectors * VMDKExtentLine.sectorByteCount
  /// Guest bytes that one table describes.
  static let tableCoverage: UInt64 = grainsInTable * grainSize

  /// Of a checked header. `byteCount`: of the extent, at most the header's capacity.
  init(_ header: VMDKSESparseHeader, byteCount: UInt64) {
    let sector = VMDKExtentLine.sectorByteCount
    self.byteCount = byteCount
    directoryOffset = header.directoryOffset * sector
    tablesOffset = header.tablesOffset * sector
    tablesByteCount = header.tablesSectors * sector
    grainsOffset = header.grainsOffset * sector
  }

  var tableCount: UInt64 { byteCount.dividedRoundingUp(by: Self.tableCoverage) }
  var tableIndices: UInt64 { tablesByteCount / Self.tableByteCount }
}
