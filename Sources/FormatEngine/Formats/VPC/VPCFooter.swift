/// What every VHD ends with, and what a dynamic one also begins with.
///
///       0 -   7  "conectix"            28 - 31  creator's name       60 - 63  type of the disk
///       8 -  11  features              32 - 35  creator's version    64 - 67  checksum
///      12 -  15  version               36 - 39  creator's host       68 - 83  unique id
///      16 -  23  dynamic disk header   40 - 47  original size        84       saved state
///      24 -  27  time stamp            48 - 55  current size         85 - 511 zeros
///                                      56 - 59  geometry
///
/// Big-endian; the time is in seconds since 2000-01-01 00:00 UTC (VHD 1.0, "Hard Disk Footer Format").
struct VPCFooter: Equatable {
  static let byteCount = 512
  static let cookie: [UInt8] = Array("conectix".utf8)
  private static let checksumField = 64
  /// Where the dynamic disk header is, of a disk that has none.
  static let noHeader = UInt64.max
  /// Seconds between 1970 and 2000.
  static let epoch: Int64 = 946_684_800
  /// 2040 GiB: with 2 MiB blocks, the last that 32-bit sector numbers reach in a file. More is damage.
  static let maximumSectorCount: UInt64 = 0xff00_0000

  enum DiskType: UInt32 {
    case fixed = 2
    case dynamic = 3
    case differencing = 4
  }

  var features: UInt32
  var version: UInt32
  var headerOffset: UInt64
  var timeStamp: UInt32
  /// Four characters.
  var creator: [UInt8]
  var creatorVersion: UInt32
  var creatorHost: [UInt8]
  var originalSize: UInt64
  var currentSize: UInt64
  var geometry: VPCDiskGeometry
  var type: DiskType
  /// 16 bytes.
  var uniqueID: [UInt8]
  var savedState: UInt8
  /// Up to 427 bytes behind it: zeros by the specification. What somebody put there stays.
  var reserved: [UInt8] = []

  /// Whether `bytes` begin as a footer does, whatever else is in them.
  static func hasCookie(_ bytes: [UInt8]) -> Bool { bytes.starts(with: cookie) }

  static func hasRightChecksum(_ bytes: [UInt8]) -> Bool {
    bytes.count == byteCount && (try? VPCChecksum.isRight(bytes, field: checksumField)) == true
  }

  static func parse(_ span: RawSpan) throws(EngineError) -> VPCFooter {
    let rawType = try span.bigEndian(UInt32.self, at: 60)
    guard let type = DiskType(rawValue: rawType) else {
      throw .unsupported("VHD disks of type \(rawType) are not supported")
    }
    let version = try span.bigEndian(UInt32.self, at: 12)
    guard version >> 16 == 1 else {
      throw .unsupported("VHD version \(version >> 16).\(version & 0xffff) is not supported")
    }
    let geometry = VPCDiskGeometry(
      cylinders: try span.bigEndian(UInt16.self, at: 56), heads: try span.bigEndian(UInt8.self, at: 58),
      sectorsPerTrack: try span.bigEndian(UInt8.self, at: 59))
    return VPCFooter(
      features: try span.bigEndian(UInt32.self, at: 8), version: version,
      headerOffset: try span.bigEndian(UInt64.self, at: 16),
      timeStamp: try span.bigEndian(UInt32.self, at: 24), creator: try span.bytes(in: 28..<32),
      creatorVersion: try span.bigEndian(UInt32.self, at: 32), creatorHost: try span.bytes(in: 36..<40),
      originalSize: try span.bigEndian(UInt64.self, at: 40),
      currentSize: try span.bigEndian(UInt64.self, at: 48), geometry: geometry, type: type,
      uniqueID: try span.bytes(in: 68..<84), savedState: try span.bigEndian(UInt8.self, at: 84),
      reserved: try span.bytes(in: 85..<byteCount))
  }

  /// The 512 bytes on disk.
  var bytes: [UInt8] {
    var bytes = Self.cookie
    bytes.append(bigEndian: features)
    bytes.append(bigEndian: version)
    bytes.append(bigEndian: headerOffset)
    bytes.append(bigEndian: timeStamp)
    bytes += creator
    bytes.append(bigEndian: creatorVersion)
    bytes += creatorHost
    bytes.append(bigEndian: originalSize)
    bytes.append(bigEndian: currentSize)
    bytes.append(bigEndian: geometry.cylinders)
    bytes += [geometry.heads, geometry.sectorsPerTrack]
    bytes.append(bigEndian: type.rawValue)
    bytes.append(bigEndian: UInt32(0))
    bytes += uniqueID
    bytes.append(savedState)
    bytes += reserved
    bytes.pad(toMultipleOf: Self.byteCount)
    bytes.put(bigEndian: VPCChecksum.of(bytes, field: Self.checksumField), at: Self.checksumField)
    return bytes
  }
}
