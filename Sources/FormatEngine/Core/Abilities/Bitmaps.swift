// What some formats can do. Asked for with `as?` once per command, never inside a loop.

/// A persistent dirty bitmap as the image lists it.
public struct BitmapRecord: Equatable, Sendable {
  public var name: String
  /// Guest bytes that one bit stands for, a power of two.
  public var granularity: UInt64
  /// New writes are recorded.
  public var isEnabled: Bool
  /// Was not stored properly: its content cannot be relied on.
  public var isInconsistent: Bool

  public init(name: String, granularity: UInt64, isEnabled: Bool = true, isInconsistent: Bool = false) {
    self.name = name
    self.granularity = granularity
    self.isEnabled = isEnabled
    self.isInconsistent = isInconsistent
  }
}

/// A layer that keeps dirty bitmaps.
public protocol BitmapKeeping: ImageLayer {
  func bitmaps() throws(EngineError) -> [BitmapRecord]
  /// The runs of guest bytes that are set, in ascending order.
  func dirtyRuns(of name: String) throws(EngineError) -> [Range<UInt64>]
}

/// A layer whose dirty bitmaps can be changed. Each call is on disk when it returns, or nothing changed.
public protocol BitmapChanging: BitmapKeeping, WritableLayer {
  /// `granularity` 0 chooses one.
  func addBitmap(named name: String, granularity: UInt64, isEnabled: Bool) throws(EngineError)
  func removeBitmap(named name: String) throws(EngineError)
  func clearBitmap(named name: String) throws(EngineError)
  func setBitmap(named name: String, enabled: Bool) throws(EngineError)
  /// Sets the bits of every run.
  func markDirty(_ runs: [Range<UInt64>], in name: String) throws(EngineError)
}
