/// The header (qed_spec.txt, "Header"). All little-endian.
///
///      0 -  3  magic                     32 - 39  autoclear features
///      4 -  7  cluster size in bytes     40 - 47  L1 table offset
///      8 - 11  table size in clusters    48 - 55  virtual size
///     12 - 15  header size in clusters   56 - 59  backing name offset
///     16 - 23  features                  60 - 63  backing name length
///     24 - 31  compatible features
struct QEDHeader: Equatable, Sendable {
  var clusterSize: UInt32
  var tableClusters: UInt32
  var headerClusters: UInt32 = 1
  var features: Features = []
  var compatibleFeatures: UInt64 = 0
  var autoclearFeatures: UInt64 = 0
  var l1Offset: UInt64
  var virtualSize: UInt64
  var backingNameOffset: UInt32 = 0
  var backingNameLength: UInt32 = 0

  /// "QED" and a NUL.
  static let magic: UInt32 = 0x0044_4551
  static let byteCount = 64
  /// QEMU takes no longer names of backing files.
  static let maximumNameLength = 1023

  /// An image with others must not be opened. Of compatible and autoclear features none is known.
  struct Features: OptionSet, Sendable {
    let rawValue: UInt64
    static let backingFile = Features(rawValue: 1 << 0)
    /// The tables may be inconsistent: somebody writes, or did not get to the end of it.
    static let needsCheck = Features(rawValue: 1 << 1)
    /// The backing file is raw, whatever it begins with.
    static let rawBacking = Features(rawValue: 1 << 2)
    static let known: Features = [.backingFile, .needsCheck, .rawBacking]
  }

  var geometry: QEDGeometry {
    QEDGeometry(clusterSize: UInt64(clusterSize), tableClusters: UInt64(tableClusters))
  }
  /// First byte after the header's clusters. At most 2^58.
  var headerEnd: UInt64 { UInt64(headerClusters) * UInt64(clusterSize) }

  /// Where the name of the backing file stands; empty where there is none, whatever its fields say.
  var nameRange: Range<UInt64> {
    guard features.contains(.backingFile) else { return 0..<0 }
    // Two 32-bit numbers.
    return UInt64(backingNameOffset)..<UInt64(backingNameOffset) + UInt64(backingNameLength)
  }

  /// Reads the fields as they stand; `validate` says whether they make sense.
  static func parse(_ bytes: RawSpan) throws(EngineError) -> QEDHeader {
    guard bytes.byteCount >= 4, try bytes.littleEndian(UInt32.self, at: 0) == magic else {
      throw EngineError(.notThisFormat, "Image not in QED format")
    }
    return QEDHeader(
      clusterSize: try bytes.littleEndian(UInt32.self, at: 4),
      tableClusters: try bytes.littleEndian(UInt32.self, at: 8),
      headerClusters: try bytes.littleEndian(UInt32.self, at: 12),
      features: Features(rawValue: try bytes.littleEndian(UInt64.self, at: 16)),
      compatibleFeatures: try bytes.littleEndian(UInt64.self, at: 24),
      autoclearFeatures: try bytes.littleEndian(UInt64.self, at: 32),
      l1Offset: try bytes.littleEndian(UInt64.self, at: 40),
      virtualSize: try bytes.littleEndian(UInt64.self, at: 48),
      backingNameOffset: try bytes.littleEndian(UInt32.self, at: 56),
      backingNameLength: try bytes.littleEndian(UInt32.self, at: 60))
  }

  /// Checks every field by itself and against the others; the words are qemu-img's where it has them.
  func validate(fileByteCount: UInt64) throws(EngineError) {
    let unknown = features.subtracting(.known).rawValue
    guard unknown == 0 else {
      throw .unsupported("Unsupported QED features: \(String(unknown, radix: 16))")
    }
    guard clusterSize.nonzeroBitCount == 1, QEDGeometry.clusterSizes.contains(UInt64(clusterSize)) else {
      throw .corrupt("QED cluster size is invalid")
    }
    guard tableClusters.nonzeroBitCount == 1, QEDGeometry.tableSizes.contains(UInt64(tableClusters)) else {
      throw .corrupt("QED table size is invalid")
    }
    guard geometry.allows(virtualSize: virtualSize) else { throw .corrupt("QED image size is invalid") }
    let fileEnd = geometry.end(ofFileOf: fileByteCount)
    guard holdsTable(at: l1Offset, fileEnd: fileEnd) else { throw .corrupt("QED table offset is invalid") }
    // The spec has no header of no clusters; every writer's has one.
    guard headerClusters > 0 else { throw .corrupt("QED header size is invalid") }
    guard headerEnd <= UInt64(UInt32.max) else { throw .corrupt("QED header size is too large") }
    guard features.contains(.backingFile) else { return }
    guard backingNameOffset >= Self.byteCount, nameRange.upperBound <= headerEnd else {
      throw .corrupt("QED backing filename offset is invalid")
    }
    guard backingNameLength <= Self.maximumNameLength else {
      throw .corrupt("QED backing filename is too long")
    }
  }

  /// Whether a data cluster can be at `hostOffset`: aligned, behind the header, inside a file of whole clusters
  /// that ends at `fileEnd`.
  func holdsCluster(at hostOffset: UInt64, fileEnd: UInt64) -> Bool {
    hostOffset.isAligned(to: UInt64(clusterSize)) && hostOffset >= headerEnd && hostOffset < fileEnd
  }

  /// The same for a whole table.
  func holdsTable(at hostOffset: UInt64, fileEnd: UInt64) -> Bool {
    holdsCluster(at: hostOffset, fileEnd: fileEnd) && geometry.tableByteCount <= fileEnd - hostOffset
  }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: Self.magic)
    bytes.append(littleEndian: clusterSize)
    bytes.append(littleEndian: tableClusters)
    bytes.append(littleEndian: headerClusters)
    bytes.append(littleEndian: features.rawValue)
    bytes.append(littleEndian: compatibleFeatures)
    bytes.append(littleEndian: autoclearFeatures)
    bytes.append(littleEndian: l1Offset)
    bytes.append(littleEndian: virtualSize)
    bytes.append(littleEndian: backingNameOffset)
    bytes.append(littleEndian: backingNameLength)
    return bytes
  }

  /// Writes the header and makes it durable. It lies in the first sector, so a power cut leaves the old or the new
  /// one.
  func write(to file: any ByteStore) throws(EngineError) {
    try file.write(bytes: serialised(), at: 0)
    try file.flush()
  }
}
