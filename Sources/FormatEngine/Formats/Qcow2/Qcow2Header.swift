/// The fixed part of the header (qcow2.txt, "Header").
///
///      0 -  3  magic                  48 - 55  refcount table offset   88 - 95  auto-clear features
///      4 -  7  version                56 - 59  refcount table clusters 96 - 99  refcount order
///      8 - 15  backing name offset    60 - 63  snapshot count         100 -103  header length
///     16 - 19  backing name length    64 - 71  snapshot table offset  104       compression type
///     20 - 23  cluster bits           72 - 79  incompatible features
///     24 - 31  virtual size           80 - 87  compatible features
///     32 - 35  encryption method
///     36 - 39  L1 entries             105 -       later fields
///     40 - 47  L1 table offset
struct Qcow2Header: Equatable, Sendable {
  var version: UInt32
  var backingNameOffset: UInt64 = 0
  var backingNameLength: UInt32 = 0
  var clusterBits: UInt32
  var virtualSize: UInt64
  var encryptionMethod: UInt32 = 0
  var l1Count: UInt32
  var l1Offset: UInt64
  var refcountTableOffset: UInt64
  var refcountTableClusters: UInt32
  var snapshotCount: UInt32 = 0
  var snapshotsOffset: UInt64 = 0
  var incompatibleFeatures: Incompatible = []
  var compatibleFeatures: Compatible = []
  var autoclearFeatures: Autoclear = []
  var refcountOrder: UInt32 = 4
  var headerLength: UInt32 = 104
  var compressionType: UInt8 = 0
  /// What stands behind the compression type up to the header's length: zeros today, kept as it is.
  var laterFields: [UInt8] = []

  static let magic: UInt32 = 0x5146_49fb
  static let version2Length: UInt32 = 72
  static let version3Length: UInt32 = 104
  /// Of the headers that are written here: with the compression type, and its padding.
  static let writtenLength: UInt32 = 112

  struct Incompatible: OptionSet, Sendable {
    let rawValue: UInt64
    static let dirty = Incompatible(rawValue: 1 << 0)
    static let corrupt = Incompatible(rawValue: 1 << 1)
    static let externalDataFile = Incompatible(rawValue: 1 << 2)
    static let compressionType = Incompatible(rawValue: 1 << 3)
    static let extendedL2 = Incompatible(rawValue: 1 << 4)
    static let known = Incompatible(rawValue: 0x1f)
  }

  struct Compatible: OptionSet, Sendable {
    let rawValue: UInt64
    static let lazyRefcounts = Compatible(rawValue: 1 << 0)
  }

  struct Autoclear: OptionSet, Sendable {
    let rawValue: UInt64
    static let bitmaps = Autoclear(rawValue: 1 << 0)
    static let rawExternalData = Autoclear(rawValue: 1 << 1)
  }

  var geometry: Qcow2Geometry {
    Qcow2Geometry(
      clusterBits: UInt64(clusterBits), hasSubclusters: incompatibleFeatures.contains(.extendedL2))
  }

  /// Reads the fields as they stand; `validate` says whether they make sense.
  static func parse(_ bytes: RawSpan) throws(EngineError) -> Qcow2Header {
    guard bytes.byteCount >= 8, try bytes.bigEndian(UInt32.self, at: 0) == magic else {
      throw EngineError(.notThisFormat, "Image is not in qcow2 format")
    }
    let version = try bytes.bigEndian(UInt32.self, at: 4)
    guard version == 2 || version == 3 else { throw .unsupported("Unsupported qcow2 version \(version)") }
    guard bytes.byteCount >= Int(version == 2 ? version2Length : version3Length) else {
      throw .corrupt("qcow2 header too short")
    }
    var header = Qcow2Header(
      version: version,
      backingNameOffset: try bytes.bigEndian(UInt64.self, at: 8),
      backingNameLength: try bytes.bigEndian(UInt32.self, at: 16),
      clusterBits: try bytes.bigEndian(UInt32.self, at: 20),
      virtualSize: try bytes.bigEndian(UInt64.self, at: 24),
      encryptionMethod: try bytes.bigEndian(UInt32.self, at: 32),
      l1Count: try bytes.bigEndian(UInt32.self, at: 36),
      l1Offset: try bytes.bigEndian(UInt64.self, at: 40),
      refcountTableOffset: try bytes.bigEndian(UInt64.self, at: 48),
      refcountTableClusters: try bytes.bigEndian(UInt32.self, at: 56),
      snapshotCount: try bytes.bigEndian(UInt32.self, at: 60),
      snapshotsOffset: try bytes.bigEndian(UInt64.self, at: 64))
    guard version == 3 else {
      header.headerLength = version2Length
      return header
    }
    header.incompatibleFeatures = Incompatible(rawValue: try bytes.bigEndian(UInt64.self, at: 72))
    header.compatibleFeatures = Compatible(rawValue: try bytes.bigEndian(UInt64.self, at: 80))
    header.autoclearFeatures = Autoclear(rawValue: try bytes.bigEndian(UInt64.self, at: 88))
    header.refcountOrder = try bytes.bigEndian(UInt32.self, at: 96)
    header.headerLength = try bytes.bigEndian(UInt32.self, at: 100)
    if header.headerLength > 104, bytes.byteCount > 104 {
      header.compressionType = try bytes.bigEndian(UInt8.self, at: 104)
    }
    return header
  }

  /// Writes the feature fields as they are here and makes them durable. They stand side by side in the first
  /// sector, so a power cut leaves the old or the new ones. Version 2 has none.
  func writeFeatures(to file: any ByteStore) throws(EngineError) {
    guard version >= 3 else { return }
    var fields: [UInt8] = []
    fields.append(bigEndian: incompatibleFeatures.rawValue)
    fields.append(bigEndian: compatibleFeatures.rawValue)
    fields.append(bigEndian: autoclearFeatures.rawValue)
    try file.write(bytes: fields, at: 72)
    try file.flush()
  }

  /// The header's own bytes: 72 for version 2, `headerLength` (at least 104) for version 3.
  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: Self.magic)
    bytes.append(bigEndian: version)
    bytes.append(bigEndian: backingNameOffset)
    bytes.append(bigEndian: backingNameLength)
    bytes.append(bigEndian: clusterBits)
    bytes.append(bigEndian: virtualSize)
    bytes.append(bigEndian: encryptionMethod)
    bytes.append(bigEndian: l1Count)
    bytes.append(bigEndian: l1Offset)
    bytes.append(bigEndian: refcountTableOffset)
    bytes.append(bigEndian: refcountTableClusters)
    bytes.append(bigEndian: snapshotCount)
    bytes.append(bigEndian: snapshotsOffset)
    guard version >= 3 else { return bytes }
    bytes.append(bigEndian: incompatibleFeatures.rawValue)
    bytes.append(bigEndian: compatibleFeatures.rawValue)
    bytes.append(bigEndian: autoclearFeatures.rawValue)
    bytes.append(bigEndian: refcountOrder)
    bytes.append(bigEndian: headerLength)
    if headerLength > 104 {
      bytes.append(compressionType)
      bytes.append(contentsOf: laterFields.prefix(Int(headerLength) - bytes.count))
      bytes.append(contentsOf: repeatElement(0, count: Int(headerLength) - bytes.count))
    }
    return bytes
  }
}
