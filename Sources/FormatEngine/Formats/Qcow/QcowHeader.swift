/// The header of version 1. All big-endian.
///
///      0 -  3  magic                 24 - 31  virtual size
///      4 -  7  version, 1            32       cluster bits
///      8 - 15  backing name offset   33       L2 bits (entries of a table)
///     16 - 19  backing name length   34 - 35  unused
///     20 - 23  modification time     36 - 39  encryption method
///              (nobody uses it)      40 - 47  L1 table offset
struct QcowHeader: Equatable, Sendable {
  var backingNameOffset: UInt64 = 0
  var backingNameLength: UInt32 = 0
  /// Kept as it is.
  var modificationTime: UInt32 = 0
  /// In bytes, as recorded.
  var virtualSize: UInt64
  var clusterBits: UInt8
  var l2Bits: UInt8
  var unused: UInt16 = 0
  var encryptionMethod: UInt32 = 0
  var l1Offset: UInt64

  static let magic: UInt32 = 0x5146_49fb
  static let version: UInt32 = 1
  static let byteCount = 48
  static let aes: UInt32 = 1
  /// Readers have room for that many.
  static let maximumNameLength = 1023
  /// QEMU opens no larger L1 tables: 512 TiB of disk with clusters of 4 KiB.
  static let maximumL1Count = UInt64(Int32.max) / 8

  /// Guest bytes: QEMU leaves out a sector that is not whole.
  var diskSize: UInt64 { virtualSize.aligned(downTo: 512) }
  var geometry: QcowGeometry { QcowGeometry(clusterBits: UInt64(clusterBits), l2Bits: UInt64(l2Bits)) }
  var l1Count: UInt64 { geometry.l1Count(forVirtualSize: virtualSize) }
  var l1ByteCount: UInt64 { l1Count * 8 }
  var isEncrypted: Bool { encryptionMethod != 0 }

  /// Reads the fields as they stand; `validate` says whether they make sense.
  static func parse(_ bytes: RawSpan) throws(EngineError) -> QcowHeader {
    guard bytes.byteCount >= 8, try bytes.bigEndian(UInt32.self, at: 0) == magic else {
      throw EngineError(.notThisFormat, "Image not in qcow format")
    }
    let version = try bytes.bigEndian(UInt32.self, at: 4)
    guard version == Self.version else {
      var error = EngineError.unsupported("qcow (v1) does not support qcow version \(version)")
      if version == 2 || version == 3 { error.additions = ["Try the 'qcow2' driver instead."] }
      throw error
    }
    return QcowHeader(
      backingNameOffset: try bytes.bigEndian(UInt64.self, at: 8),
      backingNameLength: try bytes.bigEndian(UInt32.self, at: 16),
      modificationTime: try bytes.bigEndian(UInt32.self, at: 20),
      virtualSize: try bytes.bigEndian(UInt64.self, at: 24),
      clusterBits: try bytes.bigEndian(UInt8.self, at: 32),
      l2Bits: try bytes.bigEndian(UInt8.self, at: 33),
      unused: try bytes.bigEndian(UInt16.self, at: 34),
      encryptionMethod: try bytes.bigEndian(UInt32.self, at: 36),
      l1Offset: try bytes.bigEndian(UInt64.self, at: 40))
  }

  /// Checks every field by itself and against the others; the words are qemu-img's where it has them.
  func validate(fileByteCount: UInt64) throws(EngineError) {
    guard virtualSize > 1 else { throw .corrupt("Image size is too small (must be at least 2 bytes)") }
    guard QcowGeometry.clusterBitsRange.contains(clusterBits) else {
      throw .corrupt("Cluster size must be between 512 and 64k")
    }
    guard QcowGeometry.l2BitsRange.contains(l2Bits) else {
      throw .corrupt("L2 table size must be between 512 and 64k")
    }
    guard encryptionMethod <= Self.aes else { throw .corrupt("invalid encryption method in qcow header") }
    guard virtualSize <= maximumFileOffset - (1 << geometry.coverageBits), l1Count <= Self.maximumL1Count
    else { throw .corrupt("Image too large") }
    guard l1Offset >= Self.byteCount, l1Offset <= maximumFileOffset - l1ByteCount,
      l1Offset + l1ByteCount <= fileByteCount
    else { throw .corrupt("The L1 table does not lie in the image file", at: l1Offset) }
    guard backingNameOffset != 0 else { return }
    guard backingNameLength <= Self.maximumNameLength else { throw .corrupt("Backing file name too long") }
    guard backingNameOffset >= Self.byteCount, backingNameOffset <= fileByteCount,
      UInt64(backingNameLength) <= fileByteCount - backingNameOffset
    else { throw .corrupt("The name of the backing file does not lie in the image file") }
  }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: Self.magic)
    bytes.append(bigEndian: Self.version)
    bytes.append(bigEndian: backingNameOffset)
    bytes.append(bigEndian: backingNameLength)
    bytes.append(bigEndian: modificationTime)
    bytes.append(bigEndian: virtualSize)
    bytes.append(clusterBits)
    bytes.append(l2Bits)
    bytes.append(bigEndian: unused)
    bytes.append(bigEndian: encryptionMethod)
    bytes.append(bigEndian: l1Offset)
    return bytes
  }

  /// Writes the header and makes it durable. It lies in the first sector, so a power cut leaves the old or the new
  /// one.
  func write(to file: any ByteStore) throws(EngineError) {
    try file.write(bytes: serialised(), at: 0)
    try file.flush()
  }

  /// Host bytes of the header, of the L1 table and of the backing file's name: no other ones may be written there.
  var fixedRanges: [Range<UInt64>] {
    var ranges = [0..<UInt64(Self.byteCount), l1Offset..<l1Offset + l1ByteCount]
    if backingNameOffset != 0 {
      ranges.append(backingNameOffset..<backingNameOffset + UInt64(backingNameLength))
    }
    return ranges
  }
}

/// The header, and the name of the backing file that it points to.
struct QcowPrologue: Equatable, Sendable {
  var header: QcowHeader
  var backing: BackingReference?

  static func read(from file: any ByteStore) throws(EngineError) -> QcowPrologue {
    let fileByteCount = try file.byteCount()
    let head = try file.bytes(at: 0, count: Int(min(UInt64(QcowHeader.byteCount), fileByteCount)))
    let header = try head.parsed { (span) throws(EngineError) in try QcowHeader.parse(span) }
    try header.validate(fileByteCount: fileByteCount)
    guard header.backingNameOffset != 0, header.backingNameLength > 0 else {
      return QcowPrologue(header: header)
    }
    let bytes = try file.bytes(at: header.backingNameOffset, count: Int(header.backingNameLength))
    let name = String(hostBytes: bytes.prefix { $0 != 0 })
    return QcowPrologue(header: header, backing: BackingReference(name: name))
  }
}
