/// Finds zeros in memory, step by step.
public enum ZeroScan {
  /// Whether all bytes are zero. An empty buffer is.
  public static func isZero(_ buffer: UnsafeRawBufferPointer) -> Bool {
    unsafe leadingZeros(buffer) == buffer.count
  }

  /// Bytes of a step.
  static let step = 256

  /// The bits that are set in any of the eight-byte words of a step, which must lie inside of its buffer.
  @inline(__always)
  static func bits(ofStepAt start: UnsafeRawPointer) -> UInt64 {
    var bits = SIMD8<UInt64>(repeating: 0)
    for part in 0..<4 {
      bits |= unsafe start.loadUnaligned(fromByteOffset: 64 * part, as: SIMD8<UInt64>.self)
    }
    // Halved by hand: comparing a whole vector goes lane by lane.
    let half = bits.lowHalf | bits.highHalf
    let quarter = half.lowHalf | half.highHalf
    return quarter[0] | quarter[1]
  }

  /// How many bytes from the start are known to be zero: exact when it equals the count, otherwise a
  /// lower bound that lies within 256 bytes of the first byte that is not.
  @inline(__always)
  private static func leadingZeros(_ buffer: UnsafeRawBufferPointer) -> Int {
    guard let base = buffer.baseAddress else { return 0 }
    var position = 0
    // SAFETY: every load ends at or before the buffer's count.
    while position + step <= buffer.count {
      if unsafe bits(ofStepAt: base + position) != 0 { return position }
      position += step
    }
    while position + 8 <= buffer.count {
      if unsafe base.loadUnaligned(fromByteOffset: position, as: UInt64.self) != 0 { return position }
      position += 8
    }
    while position < buffer.count {
      if unsafe base.load(fromByteOffset: position, as: UInt8.self) != 0 { return position }
      position += 1
    }
    return position
  }

  /// The run of whole blocks from `start` on that are all zero, or all not, in bytes. The last block may
  /// be short.
  public static func run(
    in buffer: UnsafeRawBufferPointer, from start: Int, block: Int
  ) -> (isZero: Bool, length: Int) {
    let first = min(block, buffer.count - start)
    let isZero = unsafe isZero(UnsafeRawBufferPointer(rebasing: buffer[start..<start + first]))
    var end = start + first
    while end < buffer.count {
      let next = min(block, buffer.count - end)
      guard unsafe self.isZero(UnsafeRawBufferPointer(rebasing: buffer[end..<end + next])) == isZero else {
        break
      }
      end += next
    }
    return (isZero, end - start)
  }
}
