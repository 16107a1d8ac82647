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
  /// The disk that would be copied, nil for an empty one.
  public var source: ImageChain?
  /// The image whose bitmaps would be copied, nil where there can be none.
  public var bitmaps: (any BitmapKeeping)?
  /// Passphrases that the options name.
  public var secrets = SecretStore()

  public init(virtualSize: UInt64, options: OptionValues, source: ImageChain? = nil) {
    self.virtualSize = virtualSize
    self.options = options
    self.source = source
  }

  /// Bytes of the new image's units of `unit` bytes, a power of two, in which the source has any data.
  func neededByteCount(unit: UInt64) throws(EngineError) -> UInt64 {
    guard let source else { return 0 }
    var count: UInt64 = 0
    var position: UInt64 = 0
    while position < source.virtualSize {
      let found = try Self.extent(of: source, at: position)
      var end = position + found.extent.length
      if !found.readsAsZeros {
        // The rest of the unit is counted with it, whatever it holds.
        end = end.aligned(upTo: unit)
        count += end - position.aligned(downTo: unit)
      }
      position = end
    }
    return count
  }

  private static func extent(of source: ImageChain, at position: UInt64) throws(EngineError) -> LocatedExtent
  {
    do throws(EngineError) {
      return try source.extent(at: position, limit: source.virtualSize - position)
    } catch {
      throw error.whileTrying("Unable to get block status")
    }
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
