/// Packed bytes that are read from front to back, each read checked.
@safe struct PackedBytes {
  private let bytes: UnsafeRawBufferPointer
  private(set) var position = 0

  init(_ bytes: UnsafeRawBufferPointer) { unsafe self.bytes = bytes }

  var count: Int { unsafe bytes.count }
  var isAtEnd: Bool { position == count }

  mutating func byte() throws(EngineError) -> UInt8 {
    guard position < count else { throw Self.tooShort }
    defer { position += 1 }
    return unsafe bytes[position]
  }

  mutating func littleEndian<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(EngineError) -> T
  {
    guard count - position >= MemoryLayout<T>.size else { throw Self.tooShort }
    defer { position += MemoryLayout<T>.size }
    // SAFETY: in bounds by the guard; every bit pattern is a valid integer.
    return T(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: position, as: T.self))
  }

  /// The next `byteCount` bytes.
  mutating func take(_ byteCount: Int) throws(EngineError) -> PackedBytes {
    guard byteCount >= 0, byteCount <= count - position else { throw Self.tooShort }
    defer { position += byteCount }
    return unsafe PackedBytes(UnsafeRawBufferPointer(rebasing: bytes[position..<position + byteCount]))
  }

  /// Eight bytes from `index` on as a little-endian number; those outside are zeros.
  func word(at index: Int) -> UInt64 {
    if index >= 0, index + 8 <= count {
      // SAFETY: in bounds by the condition.
      return UInt64(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
    }
    var word: UInt64 = 0
    for number in 0..<8 where index + number >= 0 && index + number < count {
      word |= UInt64(unsafe bytes[index + number]) << UInt64(8 * number)
    }
    return word
  }

  /// The bytes that are left, for a memory copy.
  fileprivate var rest: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: bytes[position...])
  }

  fileprivate mutating func skip(_ byteCount: Int) { position += byteCount }

  private static let tooShort = EngineError.corrupt("Packed bytes end too early")
}

/// Unpacked bytes as they come to be: literals, and repetitions of what is there already.
@safe struct UnpackedBytes {
  private let target: UnsafeMutableRawBufferPointer
  private(set) var count = 0

  init(_ target: UnsafeMutableRawBufferPointer) { unsafe self.target = target }

  /// Room that is left.
  var room: Int { unsafe target.count - count }

  /// The next `byteCount` of the packed bytes, as they are.
  mutating func copy(_ byteCount: Int, from source: inout PackedBytes) throws(EngineError) {
    guard byteCount <= room else { throw Self.tooLong }
    guard byteCount <= source.count - source.position else {
      throw .corrupt("Packed bytes end too early")
    }
    // SAFETY: in bounds on both sides by the guards.
    unsafe UnsafeMutableRawBufferPointer(rebasing: target[count..<count + byteCount])
      .copyMemory(from: UnsafeRawBufferPointer(rebasing: source.rest[..<byteCount]))
    source.skip(byteCount)
    count += byteCount
  }

  /// `byteCount` bytes that are `distance` back. They may be among those that this call writes.
  mutating func `repeat`(_ byteCount: Int, distance: Int) throws(EngineError) {
    guard byteCount <= room else { throw Self.tooLong }
    guard distance > 0, distance <= count else {
      throw .corrupt("Packed bytes repeat what is not there")
    }
    let start = count - distance
    if distance >= byteCount {
      // SAFETY: both ranges are inside the target, and they do not overlap.
      unsafe UnsafeMutableRawBufferPointer(rebasing: target[count..<count + byteCount])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: target[start..<start + byteCount]))
    } else {
      for index in 0..<byteCount { unsafe target[count + index] = unsafe target[start + index] }
    }
    count += byteCount
  }

  private static let tooLong = EngineError.corrupt("Packed bytes are more than they should be when unpacked")
}
