extension VMDKSparseHeader {
  /// The header of a sparse extent, checked. Where the directory is at the end of the file, so is the header that
  /// counts.
  static func read(from file: any ByteStore) throws(EngineError) -> VMDKSparseHeader {
    let fileByteCount = try file.byteCount()
    var header = try read(from: file, at: 0)
    // Only a descriptor: nothing else of the header is used.
    if header.capacity == 0 { return header }
    if header.directoryOffset == directoryAtEnd {
      header = try readFooter(of: file, fileByteCount, header)
    }
    try header.validate(fileByteCount: fileByteCount)
    return header
  }

  /// The header at a place, as it is.
  static func read(from file: any ByteStore, at offset: UInt64) throws(EngineError) -> VMDKSparseHeader {
    let bytes = try file.bytes(at: offset, count: byteCount)
    return try bytes.parsed { (span) throws(EngineError) in try VMDKSparseHeader(span) }
  }

  /// The last three sectors: a marker that a footer follows, the footer, a marker of the end. ("Virtual Disk Format
  /// 5.0", "Stream-Optimized Compressed Sparse Extents".)
  private static func readFooter(
    of file: any ByteStore, _ fileByteCount: UInt64, _ header: VMDKSparseHeader
  ) throws(EngineError) -> VMDKSparseHeader {
    let sector = VMDKExtentLine.sectorByteCount
    guard fileByteCount >= 4 * sector else { throw .corrupt("The VMDK file ends before its footer") }
    let start = (fileByteCount - 3 * sector).aligned(downTo: sector)
    let marker = try VMDKMarker.read(from: file, at: start)
    let end = try VMDKMarker.read(from: file, at: start + 2 * sector)
    guard marker.isMetadata(.footer), end.isMetadata(.endOfStream) else {
      throw .corrupt("The VMDK file has no footer: it is incomplete")
    }
    let footer: VMDKSparseHeader
    do throws(EngineError) {
      footer = try read(from: file, at: start + sector)
    } catch {
      throw .corrupt("The footer of the VMDK file is damaged")
    }
    guard footer.directoryOffset != directoryAtEnd, footer.capacity == header.capacity else {
      throw .corrupt("The footer of the VMDK file does not fit its header")
    }
    return footer
  }

  /// Grains of VMware are 64 KiB; 1 GiB is what QEMU takes.
  static let maximumGrainSectors: UInt64 = 0x20_0000
  /// Packed grains are unpacked whole, in memory.
  static let maximumPackedGrainSectors: UInt64 = 2 * MiB / 512
  /// Grain tables have 512 entries.
  static let maximumEntriesInTable: UInt32 = 512
  /// With 64 KiB grains they make 256 TiB; VMware's largest disks have 62 TiB.
  static let maximumDirectoryEntries: UInt64 = 8 * MiB

  /// Checks each number against its range and against the file. Texts are QEMU's where it has some.
  func validate(fileByteCount: UInt64) throws(EngineError) {
    guard (1...3).contains(version) else { throw .unsupported("Unsupported VMDK version \(version)") }
    guard compression <= 1 else {
      throw .unsupported("Unsupported compression method \(compression) of a VMDK file")
    }
    guard entriesInTable <= Self.maximumEntriesInTable else { throw .corrupt("L2 table size too big") }
    guard entriesInTable > 0 else { throw .corrupt("Grain tables without entries") }
    guard grainSectors.nonzeroBitCount == 1, grainSectors <= Self.maximumGrainSectors else {
      throw .corrupt("Invalid granularity, image may be corrupt")
    }
    guard !isPacked || grainSectors <= Self.maximumPackedGrainSectors else {
      throw .unsupported("Packed grains of \(grainSectors * 512) bytes are not supported")
    }
    let tableCoverage = UInt64(entriesInTable) * grainSectors
    guard capacity.dividedRoundingUp(by: tableCoverage) <= Self.maximumDirectoryEntries else {
      throw .corrupt("L1 size too big")
    }
    guard entriesInTable.nonzeroBitCount == 1 else {
      throw .unsupported("Grain tables of \(entriesInTable) entries: the number must be a power of two")
    }
    let fileSectors = fileByteCount.dividedRoundingUp(by: VMDKExtentLine.sectorByteCount)
    guard overheadSectors <= fileSectors else {
      let (expected, _) = overheadSectors.multipliedReportingOverflow(by: VMDKExtentLine.sectorByteCount)
      throw .corrupt("File truncated, expecting at least \(Int64(bitPattern: expected)) bytes")
    }
    guard hasWholeLineEnds || !flags.contains(.validLineEnds) else {
      throw .corrupt("The VMDK file was transferred as text, which changed its bytes")
    }
  }

  /// The embedded descriptor's text, nil where the extent has none.
  func readDescriptor(from file: any ByteStore) throws(EngineError) -> [UInt8]? {
    guard descriptorOffset != 0 else { return nil }
    let limit = UInt64(VMDKDescriptor.maximumByteCount) / VMDKExtentLine.sectorByteCount
    guard descriptorSectors <= limit, descriptorOffset <= 1 << 40 else {
      throw .corrupt("The embedded VMDK descriptor is too large or too far in the file")
    }
    let text = try file.bytes(
      at: descriptorOffset * VMDKExtentLine.sectorByteCount,
      count: Int(descriptorSectors * VMDKExtentLine.sectorByteCount))
    return text.first == 0 || text.isEmpty ? nil : text
  }
}

/// What stands before packed grains and tables in files that are written as a stream. Little-endian.
///
/// | bytes | field | of a grain       | of anything else        |
/// |-------|-------|------------------|-------------------------|
/// | 0..7  | value | its guest sector | sectors that follow     |
/// | 8..11 | size  | packed bytes     | 0                       |
/// | 12..  |       | the packed bytes | UInt32: what follows    |
struct VMDKMarker: Equatable, Sendable {
  enum Kind: UInt32 {
    case endOfStream = 0
    case grainTable = 1
    case grainDirectory = 2
    case footer = 3
  }

  var value: UInt64
  var size: UInt32
  var kind: UInt32

  /// Bytes before the packed bytes of a grain.
  static let grainPrefix: UInt64 = 12

  /// Before `sectorCount` sectors of metadata.
  init(_ kind: Kind, sectorCount: UInt64) {
    value = sectorCount
    size = 0
    self.kind = kind.rawValue
  }

  init(_ bytes: RawSpan) throws(EngineError) {
    value = try bytes.littleEndian(UInt64.self, at: 0)
    size = try bytes.littleEndian(UInt32.self, at: 8)
    kind = try bytes.littleEndian(UInt32.self, at: 12)
  }

  static func read(from file: any ByteStore, at offset: UInt64) throws(EngineError) -> VMDKMarker {
    try file.bytes(at: offset, count: 16).parsed { (span) throws(EngineError) in try VMDKMarker(span) }
  }

  /// A sector.
  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: value)
    bytes.append(littleEndian: size)
    bytes.append(littleEndian: kind)
    bytes.pad(toMultipleOf: Int(VMDKExtentLine.sectorByteCount))
    return bytes
  }

  func isMetadata(_ kind: Kind) -> Bool { size == 0 && self.kind == kind.rawValue }
}
