import Glibc

/// Random numbers that come again with the same seed (SplitMix64). Print it with every failure.
public struct SeededRandom: RandomNumberGenerator, CustomStringConvertible, Sendable {
  public let seed: UInt64
  private var state: UInt64

  public init(seed: UInt64) {
    self.seed = seed
    state = seed
  }

  /// The seed of the environment's IMGFS_TEST_SEED, else `seed`.
  public static func fromEnvironment(or seed: UInt64) -> SeededRandom {
    guard let text = unsafe getenv("IMGFS_TEST_SEED") else { return SeededRandom(seed: seed) }
    return SeededRandom(seed: UInt64(unsafe String(cString: text)) ?? seed)
  }

  public var description: String { "seed \(seed) (again: IMGFS_TEST_SEED=\(seed))" }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// A number below `limit`, which must not be 0.
  public mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }

  /// True once in `count` calls.
  public mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }

  /// Bytes that do not compress.
  public mutating func bytes(_ count: Int) -> [UInt8] {
    unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      let raw = UnsafeMutableRawBufferPointer(buffer)
      // SAFETY: whole words first, then single bytes, all below `count`.
      for offset in stride(from: 0, to: count & ~7, by: 8) {
        unsafe raw.storeBytes(of: next(), toByteOffset: offset, as: UInt64.self)
      }
      for offset in count & ~7..<count { unsafe raw[offset] = UInt8(truncatingIfNeeded: next()) }
      initialized = count
    }
  }

  /// Bytes of one value, never 0: easy to see in a dump, and they compress.
  public mutating func fill(_ count: Int) -> [UInt8] {
    [UInt8](repeating: UInt8(1 + below(255)), count: count)
  }

  /// A range of 1 to `most` bytes inside a disk, half the time on a boundary of 512 or of `unit`.
  public mutating func range(in byteCount: Int, most: Int, unit: Int = 512) -> Range<Int> {
    var start = below(byteCount)
    switch below(4) {
    case 0: start -= start % 512
    case 1: start -= start % max(unit, 1)
    default: break
    }
    var count = 1 + below(min(most, byteCount - start))
    if oneIn(3) { count = min(max(unit, 512) * (1 + below(3)), byteCount - start) }
    return start..<start + min(count, most)
  }
}
