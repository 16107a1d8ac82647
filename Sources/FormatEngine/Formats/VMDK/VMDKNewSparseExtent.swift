/// Where everything stands in a new sparse extent: header, room for a descriptor, redundant directory and tables,
/// directory and tables, then grains. All tables are there from the beginning, as in VMware's images.
struct VMDKNewSparseExtent {
  private let header: VMDKSparseHeader
  private let directoryCount: UInt64
  private let tableSectors: UInt64
  private let directorySectors: UInt64

  /// 64 KiB, VMware's and QEMU's.
  private static let grainSectors: UInt64 = 128
  private static let entriesInTable: UInt64 = 512
  /// Sector 1, and room for 10 KiB of text.
  private static let descriptorOffset: UInt64 = 1
  private static let descriptorSectors: UInt64 = 20

  init(byteCount: UInt64, hasZeroedGrains: Bool) throws(EngineError) {
    let sector = VMDKExtentLine.sectorByteCount
    let capacity = byteCount / sector
    directoryCount = capacity.dividedRoundingUp(by: Self.grainSectors * Self.entriesInTable)
    tableSectors = Self.entriesInTable * 4 / sector
    directorySectors = (directoryCount * 4).dividedRoundingUp(by: sector)
    let redundant = Self.descriptorOffset + Self.descriptorSectors
    let oneCopy = directorySectors + directoryCount * tableSectors
    let overhead = (redundant + 2 * oneCopy).aligned(upTo: Self.grainSectors)
    guard overhead < UInt64(UInt32.max), directoryCount <= VMDKSparseHeader.maximumDirectoryEntries else {
      throw VMDKFormat.tooLarge
    }
    header = VMDKSparseHeader(
      version: hasZeroedGrains ? 2 : 1,
      flags: hasZeroedGrains
        ? [.validLineEnds, .redundantTables, .zeroedGrains] : [.validLineEnds, .redundantTables],
      capacity: capacity, grainSectors: Self.grainSectors, descriptorOffset: Self.descriptorOffset,
      descriptorSectors: Self.descriptorSectors, entriesInTable: UInt32(Self.entriesInTable),
      redundantDirectoryOffset: redundant, directoryOffset: redundant + oneCopy, overheadSectors: overhead)
  }

  /// `descriptor`: nil for an extent whose descriptor is a file of its own. On disk when it returns.
  func write(to file: any ByteStore, descriptor: String?) throws(EngineError) {
    let sector = VMDKExtentLine.sectorByteCount
    if let descriptor {
      guard UInt64(descriptor.hostBytes.count) <= Self.descriptorSectors * sector else {
        throw .invalid("The descriptor of the image is too long for its file")
      }
    }
    try file.resize(to: 0)
    try file.resize(to: header.overheadSectors * sector)
    if let descriptor { try file.write(bytes: descriptor.hostBytes, at: Self.descriptorOffset * sector) }
    for directory in [header.redundantDirectoryOffset, header.directoryOffset] {
      try writeDirectory(to: file, at: directory)
    }
    // The header last: until it is there the file is no image.
    try file.flush()
    try file.write(bytes: header.serialised(), at: 0)
    try file.flush()
  }

  /// A directory whose tables follow it, in pieces: that of the largest disk has 32 MiB.
  private func writeDirectory(to file: any ByteStore, at start: UInt64) throws(EngineError) {
    let firstTable = start + directorySectors
    var index: UInt64 = 0
    while index < directoryCount {
      let end = min(directoryCount, index + MiB / 4)
      var bytes: [UInt8] = []
      bytes.reserveCapacity(Int(end - index) * 4)
      for table in index..<end {
        bytes.append(littleEndian: UInt32(truncatingIfNeeded: firstTable + table * tableSectors))
      }
      try file.write(bytes: bytes, at: start * VMDKExtentLine.sectorByteCount + index * 4)
      index = end
    }
  }
}
