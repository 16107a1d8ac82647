/// A disk or a part of one, for a look at what lies there. It reads a few bytes at a time: it is no data path.
public struct DiskWindow: Sendable {
  /// Where it starts on its disk, in bytes.
  public let start: UInt64
  public let byteCount: UInt64
  /// Bytes by their offset on the disk.
  private let diskBytes: @Sendable (_ offset: UInt64, _ count: Int) throws(EngineError) -> [UInt8]

  /// The whole of a disk as a guest sees it.
  public init(_ disk: ImageChain) {
    start = 0
    byteCount = disk.virtualSize
    diskBytes = { (offset, count) throws(EngineError) in try disk.bytes(at: offset, count: count) }
  }

  /// The whole of a store.
  public init(_ store: any ByteStore) throws(EngineError) {
    start = 0
    byteCount = try store.byteCount()
    diskBytes = { (offset, count) throws(EngineError) in try store.bytes(at: offset, count: count) }
  }

  private init(of whole: DiskWindow, start: UInt64, byteCount: UInt64) {
    self.start = start
    self.byteCount = byteCount
    diskBytes = whole.diskBytes
  }

  /// What there is of the given bytes.
  public func part(at offset: UInt64, byteCount wanted: UInt64) -> DiskWindow {
    let offset = min(offset, byteCount)
    return DiskWindow(of: self, start: start + offset, byteCount: min(wanted, byteCount - offset))
  }

  /// `count` bytes; `corrupt` where not all of them are in the window.
  public func bytes(at offset: UInt64, count: Int) throws(EngineError) -> [UInt8] {
    let wanted = UInt64(clamping: count)
    guard count >= 0, wanted <= byteCount, offset <= byteCount - wanted else {
      throw .corrupt("The bytes lie past the end of the disk", at: offset)
    }
    return try diskBytes(start + offset, count)
  }

  /// Parses `count` bytes.
  func parsed<T>(
    at offset: UInt64, count: Int, _ body: (RawSpan) throws(EngineError) -> T
  ) throws(EngineError) -> T {
    try bytes(at: offset, count: count).parsed(body)
  }
}
