/// Fields of an on-disk structure by byte offset. Each access is checked: a structure that is too short
/// is `corrupt`, never a trap.
extension RawSpan {
  @inlinable
  public func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, at offset: Int
  ) throws(EngineError) -> T {
    T(bigEndian: try field(T.self, at: offset))
  }

  @inlinable
  public func littleEndian<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, at offset: Int
  ) throws(EngineError) -> T {
    T(littleEndian: try field(T.self, at: offset))
  }

  @usableFromInline
  func field<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) throws(EngineError) -> T
  {
    guard offset >= 0, byteCount >= MemoryLayout<T>.size, offset <= byteCount - MemoryLayout<T>.size else {
      throw .corrupt("Structure ends at byte \(byteCount), before its field at \(offset)")
    }
    // SAFETY: in bounds by the guard; every bit pattern is a valid integer.
    return unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: T.self)
  }

  /// The bytes of `range`, or `corrupt` where it leaves the structure.
  public func bytes(in range: Range<Int>) throws(EngineError) -> [UInt8] {
    guard range.lowerBound >= 0, range.upperBound <= byteCount else {
      throw .corrupt("Structure ends at byte \(byteCount), before \(range.upperBound)")
    }
    var result: [UInt8] = []
    result.reserveCapacity(range.count)
    // SAFETY: in bounds by the guard; every bit pattern is a valid byte.
    for index in range { result.append(unsafe unsafeLoad(fromByteOffset: index, as: UInt8.self)) }
    return result
  }

  /// Text of `range`.
  public func text(in range: Range<Int>) throws(EngineError) -> String {
    String(hostBytes: try bytes(in: range))
  }
}

extension [UInt8] {
  /// Parses these bytes. (A closure, because a span may not outlive the array.)
  public func parsed<T>(_ body: (RawSpan) throws(EngineError) -> T) throws(EngineError) -> T {
    // SAFETY: the span covers the array's own initialized bytes and ends with this call.
    try body(unsafe span.bytes)
  }

  /// Appends an integer in big-endian order.
  public mutating func append<T: FixedWidthInteger>(bigEndian value: T) {
    for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: value >> T(shift)))
    }
  }

  /// Appends an integer in little-endian order.
  public mutating func append<T: FixedWidthInteger>(littleEndian value: T) {
    append(bigEndian: value.byteSwapped)
  }

  /// Appends zeros up to a multiple of `alignment` bytes.
  public mutating func pad(toMultipleOf alignment: Int) {
    let rest = count % alignment
    if rest != 0 { append(contentsOf: repeatElement(0, count: alignment - rest)) }
  }

  /// Overwrites the bytes at `offset` with a big-endian integer; the array must be long enough.
  public mutating func put(bigEndian value: some FixedWidthInteger, at offset: Int) {
    var field: [UInt8] = []
    field.append(bigEndian: value)
    replaceSubrange(offset..<offset + field.count, with: field)
  }
}
