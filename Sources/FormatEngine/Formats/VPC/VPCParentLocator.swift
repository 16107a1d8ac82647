/// One of the places where a differencing disk says that its parent is (VHD 1.0, "Parent Locator Entries").
///
///       0 -  3  platform   8 - 11  bytes of the path    16 - 23  where the path is
///       4 -  7  room       12 - 15  zeros
struct VPCParentLocator: Equatable {
  static let byteCount = 24
  static let maximumCount = 8
  /// Windows has paths of 32767 characters; more is damage.
  static let maximumPathByteCount: UInt32 = 65536

  /// Four characters that say what kind of path it is.
  enum Platform {
    static let none: UInt32 = 0
    /// UTF-16LE, relative to the folder of the disk.
    static let relative: UInt32 = 0x5732_7275  // W2ru
    /// UTF-16LE, absolute.
    static let absolute: UInt32 = 0x5732_6b75  // W2ku
    /// The deprecated ones, of one byte a character.
    static let oldRelative: UInt32 = 0x5769_3272  // Wi2r
    static let oldAbsolute: UInt32 = 0x5769_326b  // Wi2k
  }

  var platform: UInt32
  /// Sectors, by the specification; many programs write bytes.
  var room: UInt32
  var pathByteCount: UInt32
  var pathOffset: UInt64

  static func parse(_ span: RawSpan, at offset: Int) throws(EngineError) -> VPCParentLocator {
    VPCParentLocator(
      platform: try span.bigEndian(UInt32.self, at: offset),
      room: try span.bigEndian(UInt32.self, at: offset + 4),
      pathByteCount: try span.bigEndian(UInt32.self, at: offset + 8),
      pathOffset: try span.bigEndian(UInt64.self, at: offset + 16))
  }

  func append(to bytes: inout [UInt8]) {
    bytes.append(bigEndian: platform)
    bytes.append(bigEndian: room)
    bytes.append(bigEndian: pathByteCount)
    bytes.append(bigEndian: UInt32(0))
    bytes.append(bigEndian: pathOffset)
  }

  /// Whether there is a path at all, of a length that one can have.
  var isUsed: Bool {
    platform != Platform.none && pathByteCount > 0 && pathByteCount <= Self.maximumPathByteCount
  }

  /// The bytes of the file that the path takes, nil where it takes none or they cannot be in a file of that length.
  func range(inFileOf byteCount: UInt64) -> Range<UInt64>? {
    guard isUsed, pathOffset <= byteCount, UInt64(pathByteCount) <= byteCount - pathOffset else { return nil }
    return pathOffset..<pathOffset + UInt64(pathByteCount)
  }
}
