// What some formats can do. Asked for with `as?` once per command, never inside a loop.

/// A format that can tell in advance how large an image would be.
public protocol Measurable: CreatableFormat {
  static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement
}

/// What is to be measured.
public struct MeasureRequest: Sendable {
  /// Guest bytes.
  public var virtualSize: UInt64
  /// Of the new image, as for its making.
  public var options: OptionValues
  /// Guest bytes that hold data, in runs in ascending order that do not touch; nil for an empty disk.
  public var dataRuns: [Range<UInt64>]?
  /// The persistent bitmaps that would be copied, nil where the source cannot hold any.
  public var bitmaps: [BitmapRecord]?

  public init(
    virtualSize: UInt64, options: OptionValues, dataRuns: [Range<UInt64>]? = nil,
    bitmaps: [BitmapRecord]? = nil
  ) {
    self.virtualSize = virtualSize
    self.options = options
    self.dataRuns = dataRuns
    self.bitmaps = bitmaps
  }
}

/// Bytes of the image file.
public struct Measurement: Equatable, Sendable {
  /// Once the data is in it.
  public var required: UInt64
  /// Once every guest byte is in it.
  public var fullyAllocated: UInt64
  /// Further ones for the bitmaps, nil where the format or the source has none.
  public var bitmaps: UInt64?

  public init(required: UInt64, fullyAllocated: UInt64, bitmaps: UInt64? = nil) {
    self.required = required
    self.fullyAllocated = fullyAllocated
    self.bitmaps = bitmaps
  }
}
