/// The header of a sparse extent of ESX servers, which have it for what a snapshot changes (type VMFSSPARSE). Little-endian.
/// (libyal, "VMware Virtual Disk Format", "The COWD sparse extent data file"; "Virtual Disk Format 5.0", "ESX Server Sparse
/// Extents".)
///
/// | bytes      | field          | meaning                                                    |
/// |------------|----------------|------------------------------------------------------------|
/// | 0..3       | magicNumber    | "COWD"                                                     |
/// | 4..7       | version        | 1                                                          |
/// | 8..11      | flags          | 3                                                          |
/// | 12..15     | numSectors     | guest sectors                                              |
/// | 16..19     | grainSize      | sectors in a grain, mostly 1                               |
/// | 20..23     | gdOffset       | sector of the grain directory: 4                           |
/// | 24..27     | numGDEntries   | its entries                                                |
/// | 28..31     | freeSector     | the sector at which the next grain or table is to be put   |
/// | 32..2047   |                | geometry or parent, names, generations: of no use here     |
struct VMDKCOWDHeader: Equatable, Sendable {
  var version: UInt32
  var capacity: UInt32
  var grainSectors: UInt32
  var directoryOffset: UInt32
  var directoryCount: UInt32

  /// "COWD".
  static let magic: UInt32 = 0x4457_4f43
  static let byteCount: UInt64 = 2048
  /// Host offset of the field of the next free sector.
  static let freeSectorOffset: UInt64 = 28
  /// Each grain table has as many.
  static let entriesInTable: UInt64 = 4096

  /// Parses the fields; `validate` says whether they can be true.
  init(_ bytes: RawSpan) throws(EngineError) {
    guard try bytes.littleEndian(UInt32.self, at: 0) == Self.magic else {
      throw EngineError(.notThisFormat, "Image not in VMDK format")
    }
    version = try bytes.littleEndian(UInt32.self, at: 4)
    capacity = try bytes.littleEndian(UInt32.self, at: 12)
    grainSectors = try bytes.littleEndian(UInt32.self, at: 16)
    directoryOffset = try bytes.littleEndian(UInt32.self, at: 20)
    directoryCount = try bytes.littleEndian(UInt32.self, at: 24)
  }

  /// The header of an extent, checked.
  static func read(from file: any ByteStore) throws(EngineError) -> VMDKCOWDHeader {
    let header = try file.bytes(at: 0, count: Int(byteCount)).parsed { (span) throws(EngineError) in
      try VMDKCOWDHeader(span)
    }
    try header.validate()
    return header
  }

  /// Texts are QEMU's where it has some.
  private func validate() throws(EngineError) {
    guard version == 1 else { throw .unsupported("Unsupported version \(version) of a COWD extent") }
    guard grainSectors.nonzeroBitCount == 1, UInt64(grainSectors) <= VMDKSparseHeader.maximumGrainSectors
    else {
      throw .corrupt("Invalid granularity, image may be corrupt")
    }
    let needed = UInt64(capacity).dividedRoundingUp(by: Self.entriesInTable * UInt64(grainSectors))
    guard needed <= UInt64(directoryCount) else {
      throw .corrupt("The grain directory has \(directoryCount) entries, but the disk needs \(needed)")
    }
    let end = UInt64(directoryOffset) * VMDKExtentLine.sectorByteCount
    guard end >= Self.byteCount || needed == 0 else {
      throw .corrupt("The grain directory lies in the header of the extent")
    }
  }
}
