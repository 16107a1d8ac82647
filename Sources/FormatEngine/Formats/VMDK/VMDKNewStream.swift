/// Where everything stands in a new image that is written from front to back: header, descriptor, packed grains with
/// their tables between them, directory, footer. ("Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse
/// Extents".)
struct VMDKNewStream {
  private let header: VMDKSparseHeader

  /// 64 KiB, VMware's and QEMU's.
  private static let grainSectors: UInt64 = 128
  private static let entriesInTable: UInt32 = 512
  /// Sector 1, and room for 10 KiB of text.
  private static let descriptorOffset: UInt64 = 1
  private static let descriptorSectors: UInt64 = 20
  /// VMware's grains begin at 64 KiB.
  private static let overheadSectors: UInt64 = 128

  init(byteCount: UInt64, hasZeroedGrains: Bool) throws(EngineError) {
    let capacity = byteCount / VMDKExtentLine.sectorByteCount
    let tableCoverage = Self.grainSectors * UInt64(Self.entriesInTable)
    guard capacity.dividedRoundingUp(by: tableCoverage) <= VMDKSparseHeader.maximumDirectoryEntries else {
      throw VMDKFormat.tooLarge
    }
    var flags: VMDKSparseHeader.Flags = [.validLineEnds, .packed, .markers]
    if hasZeroedGrains { flags.insert(.zeroedGrains) }
    header = VMDKSparseHeader(
      version: 3, flags: flags, capacity: capacity, grainSectors: Self.grainSectors,
      descriptorOffset: Self.descriptorOffset, descriptorSectors: Self.descriptorSectors,
      entriesInTable: Self.entriesInTable, redundantDirectoryOffset: 0,
      directoryOffset: VMDKSparseHeader.directoryAtEnd, overheadSectors: Self.overheadSectors, compression: 1)
  }

  /// An image without any grain. On disk when it returns.
  func write(to file: any ByteStore, descriptor: String) throws(EngineError) {
    try file.resize(to: 0)
    var writer = try begin(on: file, descriptor: descriptor)
    // Without its footer the file is no image.
    try writer.finish()
    try file.flush()
  }

  /// What stands before the grains, and a writer for them and what follows.
  func begin(on file: any ByteStore, descriptor: String) throws(EngineError) -> VMDKStreamWriter {
    let sector = VMDKExtentLine.sectorByteCount
    guard UInt64(descriptor.hostBytes.count) <= Self.descriptorSectors * sector else {
      throw .invalid("The descriptor of the image is too long for its file")
    }
    var head = header.serialised() + descriptor.hostBytes
    head.pad(toMultipleOf: Int(Self.overheadSectors * sector))
    try file.write(bytes: head, at: 0)
    return try VMDKStreamWriter(header, file: file)
  }

  var grainSize: UInt64 { header.grainSectors * VMDKExtentLine.sectorByteCount }
}
