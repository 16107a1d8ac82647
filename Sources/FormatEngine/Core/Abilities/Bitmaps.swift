// What some formats can do. Asked for with `as?` once per command, never inside a loop.

/// A persistent dirty bitmap as the image lists it.
public struct BitmapRecord: Equatable, Sendable {
  public var name: String
  /// Guest bytes that one bit stands for, a power of two.
  public var granularity: UInt64
  /// New writes are recorded.
  public var isEnabled: Bool
  /// Was not stored properly: its content cannot be relied on, and all that can be done is to remove it.
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
  /// In the order of the image's own list.
  func bitmaps() throws(EngineError) -> [BitmapRecord]
  /// The one of this name, nil where there is none.
  func bitmap(named name: String) throws(EngineError) -> BitmapRecord?
  /// Calls `body` with each run of guest bytes that is set, in ascending order; runs do not touch and end
  /// inside the disk. A bitmap that is not there or is inconsistent is an error.
  ///
  /// The caller sees to it that nothing writes to the disk meanwhile.
  func forEachDirtyRun(
    of name: String, _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError)
}

/// A layer whose dirty bitmaps can be changed.
public protocol BitmapChanging: BitmapKeeping, WritableLayer {
  /// What an image of this format and version takes.
  var bitmapRules: BitmapRules { get }
  /// Changes the list as `body` says. All of it is on disk when it returns; where `body` throws, or the
  /// power fails before the end, the image has the bitmaps that it had.
  ///
  /// The caller sees to it that nothing else reads or writes the disk meanwhile.
  func changeBitmaps(_ body: (inout BitmapEditor) throws(EngineError) -> Void) throws(EngineError)
}

/// What a format asks of new bitmaps.
public struct BitmapRules: Equatable, Sendable {
  /// Why there can be none at all, nil where there can.
  public var refusal: String?
  public var maximumCount: Int
  /// Bytes of UTF-8.
  public var maximumNameLength: Int
  /// Powers of two.
  public var granularityBits: ClosedRange<UInt64>
  /// Where nobody chooses one.
  public var defaultGranularityBits: UInt64
  /// Bytes of all bits of one bitmap.
  public var maximumByteCount: UInt64

  public init(
    refusal: String? = nil, maximumCount: Int, maximumNameLength: Int, granularityBits: ClosedRange<UInt64>,
    defaultGranularityBits: UInt64, maximumByteCount: UInt64
  ) {
    self.refusal = refusal
    self.maximumCount = maximumCount
    self.maximumNameLength = maximumNameLength
    self.granularityBits = granularityBits
    self.defaultGranularityBits = defaultGranularityBits
    self.maximumByteCount = maximumByteCount
  }
}
