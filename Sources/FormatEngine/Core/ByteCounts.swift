public let KiB: UInt64 = 1 << 10
public let MiB: UInt64 = 1 << 20
public let GiB: UInt64 = 1 << 30
public let TiB: UInt64 = 1 << 40

/// The largest offset that a file can have on Linux (off_t is signed).
public let maximumFileOffset = UInt64(Int64.max)

/// Arithmetic on numbers that come from an image: it throws where plain operators would trap.
extension FixedWidthInteger {
  @inlinable
  public func adding(_ other: Self, orCorrupt what: @autoclosure () -> String) throws(EngineError) -> Self {
    let (sum, overflow) = addingReportingOverflow(other)
    if overflow { throw .corrupt("\(what()) is out of range") }
    return sum
  }

  @inlinable
  public func subtracting(_ other: Self, orCorrupt what: @autoclosure () -> String) throws(EngineError)
    -> Self
  {
    let (difference, overflow) = subtractingReportingOverflow(other)
    if overflow { throw .corrupt("\(what()) is out of range") }
    return difference
  }

  @inlinable
  public func multiplied(by other: Self, orCorrupt what: @autoclosure () -> String) throws(EngineError)
    -> Self
  {
    let (product, overflow) = multipliedReportingOverflow(by: other)
    if overflow { throw .corrupt("\(what()) is out of range") }
    return product
  }
}

extension UInt64 {
  /// Rounded down to a multiple of `unit`, a power of two.
  @inlinable public func aligned(downTo unit: UInt64) -> UInt64 { self & ~(unit &- 1) }

  /// Rounded up to a multiple of `unit`, a power of two; the caller knows that it does not overflow
  /// (offsets inside a disk, whose size is at most 2^63).
  @inlinable public func aligned(upTo unit: UInt64) -> UInt64 { (self &+ (unit &- 1)) & ~(unit &- 1) }

  @inlinable public func isAligned(to unit: UInt64) -> Bool { self & (unit &- 1) == 0 }

  /// Rounded down to a multiple of `unit`, which need not be a power of two.
  @inlinable public func floored(to unit: UInt64) -> UInt64 { self - self % unit }

  /// Rounded up to a multiple of `unit`, which need not be a power of two; the caller knows that it does not
  /// overflow.
  @inlinable public func raised(to unit: UInt64) -> UInt64 { dividedRoundingUp(by: unit) * unit }

  /// `self / divisor`, rounded up, without overflow for any value.
  @inlinable
  public func dividedRoundingUp(by divisor: UInt64) -> UInt64 {
    let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
    return quotient + (remainder == 0 ? 0 : 1)
  }
}
