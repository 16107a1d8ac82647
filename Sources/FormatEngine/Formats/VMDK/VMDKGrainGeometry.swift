/// How a sparse extent is cut: grains of guest bytes, tables of their places, a directory of the tables. All in
/// bytes, but for numbers of things.
///
/// | guest offset | bits                  |
/// |--------------|-----------------------|
/// | table        | above `coverageBits`  |
/// | entry        | below, above `grainBits` |
/// | in the grain | below `grainBits`     |
struct VMDKGrainGeometry: Equatable, Sendable {
  /// Guest bytes of the extent.
  var byteCount: UInt64
  var grainBits: UInt64
  /// Entries in a grain table, as a power of two.
  var tableBits: UInt64
  var directoryOffset: UInt64
  /// Nil where there is only one directory.
  var redundantDirectoryOffset: UInt64?
  /// Entries may say that a grain is zeros (1).
  var hasZeroedGrains: Bool
  var isPacked: Bool
  /// Packed bytes have a marker before them.
  var hasMarkers: Bool
  /// Bytes before the first grain.
  var overhead: UInt64
  /// Of the embedded descriptor.
  var descriptor: Range<UInt64>
  /// Of the file's own header.
  var headerByteCount = UInt64(VMDKSparseHeader.byteCount)
  /// Host offset of a field of 32 bits that says at which sector the next grain is to be put; nil where there is none.
  var freeSectorOffset: UInt64?

  /// Of a checked header. `byteCount`: of the extent, at most the header's capacity.
  init(_ header: VMDKSparseHeader, byteCount: UInt64) throws(EngineError) {
    let sector = VMDKExtentLine.sectorByteCount
    func bytes(_ sectors: UInt64, _ what: String) throws(EngineError) -> UInt64 {
      // Sectors are numbered with 32 bits wherever grains and tables are.
      guard sectors <= UInt64(UInt32.max) else { throw .corrupt("\(what) is out of range") }
      return sectors * sector
    }
    self.byteCount = byteCount
    grainBits = UInt64(header.grainSectors.trailingZeroBitCount) + 9
    tableBits = UInt64(header.entriesInTable.trailingZeroBitCount)
    directoryOffset = try bytes(header.directoryOffset, "The grain directory")
    let hasTwo = header.flags.contains(.redundantTables) && header.redundantDirectoryOffset != 0
    redundantDirectoryOffset =
      hasTwo ? try bytes(header.redundantDirectoryOffset, "The redundant grain directory") : nil
    hasZeroedGrains = header.flags.contains(.zeroedGrains)
    isPacked = header.isPacked
    hasMarkers = header.flags.contains(.markers)
    overhead = try bytes(header.overheadSectors, "The end of the metadata")
    let descriptorStart = try bytes(header.descriptorOffset, "The embedded descriptor")
    descriptor =
      descriptorStart == 0
      ? 0..<0 : descriptorStart..<descriptorStart + (try bytes(header.descriptorSectors, "The descriptor"))
  }

  /// Of a checked header. `byteCount`: of the extent, at most the header's capacity.
  init(_ header: VMDKCOWDHeader, byteCount: UInt64) {
    self.byteCount = byteCount
    grainBits = UInt64(header.grainSectors.trailingZeroBitCount) + 9
    tableBits = UInt64(VMDKCOWDHeader.entriesInTable.trailingZeroBitCount)
    directoryOffset = UInt64(header.directoryOffset) * VMDKExtentLine.sectorByteCount
    hasZeroedGrains = false
    isPacked = false
    hasMarkers = false
    descriptor = 0..<0
    headerByteCount = VMDKCOWDHeader.byteCount
    freeSectorOffset = VMDKCOWDHeader.freeSectorOffset
    overhead = VMDKCOWDHeader.byteCount
    overhead = max(overhead, directoryOffset + directoryByteCount)
  }

  var grainSize: UInt64 { 1 << grainBits }
  /// Guest bytes that one table describes.
  var coverageBits: UInt64 { grainBits + tableBits }
  var tableByteCount: UInt64 { 4 << tableBits }
  var directoryCount: UInt64 { byteCount.dividedRoundingUp(by: 1 << coverageBits) }
  var directoryByteCount: UInt64 { directoryCount * 4 }
  /// Host bytes that entries of 32 bits can tell the places of.
  static let maximumFileByteCount: UInt64 = (1 << 32) * VMDKExtentLine.sectorByteCount

  func tableIndex(_ offset: UInt64) -> UInt64 { offset >> coverageBits }
  /// Entries of a table that stand for grains of the extent.
  func entryCount(ofTable index: UInt64) -> UInt64 {
    let rest = byteCount - min(byteCount, index << coverageBits)
    return min(rest.dividedRoundingUp(by: grainSize), 1 << tableBits)
  }

  func entryIndex(_ offset: UInt64) -> Int { Int((offset >> grainBits) & ((1 << tableBits) - 1)) }
  func offsetInGrain(_ offset: UInt64) -> UInt64 { offset & (grainSize - 1) }
}

/// An entry of a grain table: the sector at which the grain, or its marker, begins.
struct VMDKGrainEntry: Equatable, Sendable {
  var raw: UInt32

  static let none = VMDKGrainEntry(raw: 0)
  /// Reads as zeros; only where the header says that there are such entries.
  static let zeros = VMDKGrainEntry(raw: 1)

  init(raw: UInt32) { self.raw = raw }

  /// `hostOffset`: of whole sectors, below `maximumFileByteCount`.
  init(hostOffset: UInt64) { raw = UInt32(truncatingIfNeeded: hostOffset / VMDKExtentLine.sectorByteCount) }

  var isStored: Bool { raw > 1 }
  var hostOffset: UInt64 { UInt64(raw) * VMDKExtentLine.sectorByteCount }
}
