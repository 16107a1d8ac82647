/// What stands before the grains of an image that comes out of a pipe: header, descriptor, and with QEMU's images the
/// tables, which VMware's have at the end.
struct VMDKStreamHead {
  let header: VMDKSparseHeader
  /// Grains that the tables name, where they stand first.
  private let expectedGrainCount: UInt64?

  var hasTables: Bool { expectedGrainCount != nil }

  /// QEMU's tables of 1 TiB with grains of 64 KiB, twice, need half of that.
  private static let maximumByteCount: UInt64 = 256 * MiB

  init(_ pipe: PipeReader) throws(EngineError) {
    let sector = VMDKExtentLine.sectorByteCount
    let first = try pipe.peek(VMDKSparseHeader.byteCount)
    let header = try first.parsed { (span) throws(EngineError) in
      guard span.byteCount == VMDKSparseHeader.byteCount else {
        throw .corrupt("File is too small, not a valid image")
      }
      return try VMDKSparseHeader(span)
    }
    try header.validate(fileByteCount: maximumFileOffset)
    guard header.isPacked, header.flags.contains(.markers) else {
      throw .unsupported(
        "Of VMDK images only streamOptimized ones can be read from a pipe: save it as a file first")
    }
    guard header.capacity <= maximumFileOffset / sector else { throw .corrupt("L1 size too big") }
    let descriptorEnd = try header.descriptorOffset.adding(
      header.descriptorSectors, orCorrupt: "The descriptor")
    let byteCount = try max(header.overheadSectors, descriptorEnd, 1)
      .multiplied(by: sector, orCorrupt: "The end of the metadata")
    guard byteCount <= Self.maximumByteCount else {
      throw .unsupported(
        "The VMDK image has tables of \(byteCount) bytes before its grains: save it as a file first")
    }
    var bytes = [UInt8](repeating: 0, count: Int(byteCount))
    guard try Self.fill(&bytes, from: pipe) == bytes.count else {
      throw .corrupt("'\(pipe.path)' ended in the middle of the VMDK stream: it is incomplete")
    }
    self.header = header
    let text = Array(bytes[Int(header.descriptorOffset * sector)..<Int(descriptorEnd * sector)])
    guard header.descriptorOffset > 0, text.count <= VMDKDescriptor.maximumByteCount, text.first ?? 0 != 0
    else {
      throw .corrupt("The VMDK file is one extent of a disk, and has no descriptor of its own")
    }
    guard try !VMDKDescriptor(text).hasParent else {
      throw .unsupported("The VMDK image is the difference to a parent, which a pipe cannot have")
    }
    expectedGrainCount =
      header.directoryOffset == VMDKSparseHeader.directoryAtEnd
      ? nil : try Self.grainCount(bytes, header)
  }

  private static func fill(_ bytes: inout [UInt8], from pipe: PipeReader) throws(EngineError) -> Int {
    var result: Result<Int, EngineError> = .success(0)
    unsafe bytes.withUnsafeMutableBytes { raw in
      do throws(EngineError) { result = .success(unsafe try pipe.read(into: raw)) } catch {
        result = .failure(error)
      }
    }
    return try result.get()
  }

  /// Entries of the tables that stand for grains.
  private static func grainCount(_ bytes: [UInt8], _ header: VMDKSparseHeader) throws(EngineError) -> UInt64 {
    let geometry = try VMDKGrainGeometry(
      header, byteCount: header.capacity * VMDKExtentLine.sectorByteCount)
    var count: UInt64 = 0
    var tableCount: UInt64 = 0
    for index in 0..<geometry.directoryCount {
      let table = try entry(of: bytes, at: geometry.directoryOffset + index * 4)
      guard table > 0 else { continue }
      tableCount += 1
      guard tableCount * geometry.tableByteCount <= UInt64(bytes.count) else {
        throw .corrupt("Tables of the VMDK image lie over each other")
      }
      let start = UInt64(table) * VMDKExtentLine.sectorByteCount
      for number in 0..<geometry.entryCount(ofTable: index) {
        let grain = VMDKGrainEntry(raw: try entry(of: bytes, at: start + number * 4))
        if grain.isStored { count += 1 }
      }
    }
    return count
  }

  private static func entry(of bytes: [UInt8], at offset: UInt64) throws(EngineError) -> UInt32 {
    guard offset <= UInt64(bytes.count) - 4 else {
      throw .unsupported(
        "The VMDK image has tables behind its grains, and no footer: save it as a file first")
    }
    let start = Int(offset)
    return UInt32(bytes[start]) | UInt32(bytes[start + 1]) << 8 | UInt32(bytes[start + 2]) << 16
      | UInt32(bytes[start + 3]) << 24
  }

  /// A file that was cut off between two grains looks whole.
  func require(grainCount: UInt64, path: String) throws(EngineError) {
    guard let expectedGrainCount, expectedGrainCount != grainCount else { return }
    throw .corrupt(
      "'\(path)' has \(grainCount) of the \(expectedGrainCount) grains that its tables name: it is incomplete"
    )
  }
}
