/// The header of dynamic and differencing disks.
///
///       0 -   7  "cxsparse"          28 -  31  entries of the table   60 -  63  zeros
///       8 -  15  all ones            32 -  35  bytes of a block       64 - 575  parent's name, UTF-16BE
///      16 -  23  where the table is  36 -  39  checksum              576 - 767  eight parent locators
///      24 -  27  version             40 -  55  parent's unique id    768 - 1023 zeros
///                                    56 -  59  parent's time stamp
///
/// Big-endian (VHD 1.0, "Dynamic Disk Header Format"). All that changes in the life of a disk stands in its first
/// sector, so that one write of a sector changes it.
struct VPCDynamicHeader: Equatable {
  static let byteCount = 1024
  static let cookie: [UInt8] = Array("cxsparse".utf8)
  private static let checksumField = 36
  /// QEMU's limit: entries of 2 GiB of table.
  static let maximumEntryCount: UInt32 = UInt32(Int32.max) / 4

  var tableOffset: UInt64
  var version: UInt32
  var entryCount: UInt32
  var blockSize: UInt32
  /// 16 bytes.
  var parentID: [UInt8]
  var parentTimeStamp: UInt32
  /// UTF-16 units up to the first zero.
  var parentName: [UInt16]
  var locators: [VPCParentLocator]
  /// Up to 256 bytes behind them: zeros by the specification. What somebody put there stays.
  var reserved: [UInt8] = []

  /// Whether the checksum is right; QEMU does not look at it.
  static func hasRightChecksum(_ bytes: [UInt8]) -> Bool {
    (try? VPCChecksum.isRight(bytes, field: checksumField)) == true
  }

  static func parse(_ span: RawSpan) throws(EngineError) -> VPCDynamicHeader {
    guard try span.bytes(in: 0..<8) == cookie else { throw .corrupt("Invalid header magic") }
    var name: [UInt16] = []
    for index in 0..<256 {
      let unit = try span.bigEndian(UInt16.self, at: 64 + 2 * index)
      if unit == 0 { break }
      name.append(unit)
    }
    var locators: [VPCParentLocator] = []
    for index in 0..<VPCParentLocator.maximumCount {
      locators.append(try VPCParentLocator.parse(span, at: 576 + index * VPCParentLocator.byteCount))
    }
    return VPCDynamicHeader(
      tableOffset: try span.bigEndian(UInt64.self, at: 16), version: try span.bigEndian(UInt32.self, at: 24),
      entryCount: try span.bigEndian(UInt32.self, at: 28), blockSize: try span.bigEndian(UInt32.self, at: 32),
      parentID: try span.bytes(in: 40..<56), parentTimeStamp: try span.bigEndian(UInt32.self, at: 56),
      parentName: name, locators: locators, reserved: try span.bytes(in: 768..<byteCount))
  }

  /// The 1024 bytes on disk.
  var bytes: [UInt8] {
    var bytes = Self.cookie
    bytes.append(bigEndian: UInt64.max)
    bytes.append(bigEndian: tableOffset)
    bytes.append(bigEndian: version)
    bytes.append(bigEndian: entryCount)
    bytes.append(bigEndian: blockSize)
    bytes.append(bigEndian: UInt32(0))
    bytes += parentID
    bytes.append(bigEndian: parentTimeStamp)
    bytes.append(bigEndian: UInt32(0))
    for index in 0..<256 { bytes.append(bigEndian: index < parentName.count ? parentName[index] : 0) }
    for locator in locators { locator.append(to: &bytes) }
    bytes += reserved
    bytes.pad(toMultipleOf: Self.byteCount)
    bytes.put(bigEndian: VPCChecksum.of(bytes, field: Self.checksumField), at: Self.checksumField)
    return bytes
  }

  /// Checks every number, for a disk of `virtualSize` in a file of `fileByteCount`. Words are QEMU's.
  func validate(virtualSize: UInt64, fileByteCount: UInt64) throws(EngineError) {
    guard blockSize.nonzeroBitCount == 1, blockSize >= 512 else {
      throw .corrupt("Invalid block size \(blockSize)")
    }
    guard UInt64(blockSize) * UInt64(entryCount) >= virtualSize else {
      throw .corrupt("Page table too small")
    }
    guard entryCount <= Self.maximumEntryCount else {
      throw .corrupt("Max Table Entries too large (\(entryCount))")
    }
    // Only entries of the disk are needed; more may be promised than are there.
    let needed = virtualSize.dividedRoundingUp(by: UInt64(blockSize)) * 4
    guard tableOffset.isAligned(to: 512), tableOffset <= fileByteCount, needed <= fileByteCount - tableOffset
    else {
      throw .corrupt("Error reading pagetable")
    }
  }
}
