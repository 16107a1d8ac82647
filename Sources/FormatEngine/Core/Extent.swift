/// What one layer says of a run of guest bytes.
///
/// | source      | the guest reads                     | hostOffset                  |
/// |-------------|-------------------------------------|-----------------------------|
/// | below       | the layer below, or zeros           | set where room is kept      |
/// | zeros       | zeros, whatever lies below          | set where room is kept      |
/// | stored      | `length` bytes of store `store`     | where they are              |
/// | compressed  | what only the layer can unpack      | where the packed bytes are  |
public struct Extent: BitwiseCopyable, Equatable, Sendable {
  public enum Source: UInt8, BitwiseCopyable, Sendable {
    case below
    case zeros
    case stored
    case compressed
  }

  public var source: Source
  public var isEncrypted: Bool
  /// `stored`, but the store has a hole there, so it reads as zeros (ImageChain.extent finds out).
  public var isHole: Bool
  /// Which of the layer's stores holds the bytes.
  public var store: UInt16
  /// Guest bytes, never 0.
  public var length: UInt64
  public var hostOffset: UInt64?

  public init(
    _ source: Source, length: UInt64, hostOffset: UInt64? = nil, store: UInt16 = 0, isEncrypted: Bool = false
  ) {
    self.source = source
    self.length = length
    self.hostOffset = hostOffset
    self.store = store
    self.isEncrypted = isEncrypted
    self.isHole = false
  }

  /// Known to read as zeros without looking at the bytes (`below`: when nothing lies below).
  public var readsAsZeros: Bool { source == .zeros || isHole }

  /// The first `limit` bytes of it.
  public func clamped(to limit: UInt64) -> Extent {
    var extent = self
    extent.length = Swift.min(length, limit)
    return extent
  }
}
