import Glibc

/// A disk as plain bytes: what every image must read like, whatever its format does inside.
public struct ModelDisk: Equatable, Sendable {
  public private(set) var bytes: [UInt8]

  /// A disk of zeros.
  public init(byteCount: Int) { bytes = [UInt8](repeating: 0, count: byteCount) }

  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  public var byteCount: Int { bytes.count }

  public func read(at offset: Int, count: Int) -> [UInt8] { Array(bytes[offset..<offset + count]) }

  public mutating func write(_ source: [UInt8], at offset: Int) { bytes.overwrite(at: offset, with: source) }

  public mutating func writeZeros(at offset: Int, count: Int) {
    bytes.overwriteWithZeros(at: offset, count: count)
  }

  /// Takes over what an image reads after a discard, when that is allowed: each block of 512 bytes reads
  /// as before, as zeros, or as `below` does. Says where it is not.
  public mutating func discard(at offset: Int, reading now: [UInt8], below: ModelDisk?) -> Int? {
    let zeros = [UInt8](repeating: 0, count: 512)
    var position = offset
    let end = offset + now.count
    while position < end {
      let next = Swift.min(end, (position / 512 + 1) * 512)
      let (start, count) = (position - offset, next - position)
      let isAllowed =
        now.equals(bytes, from: start, to: position, count: count)
        || now.equals(zeros, from: start, to: 0, count: count)
        || below.map { now.equals($0.padded(position..<next), from: start, to: 0, count: count) } == true
      guard isAllowed else { return position }
      position = next
    }
    write(now, at: offset)
    return nil
  }

  /// Bytes of a range that may go past the end, where zeros are read.
  public func padded(_ range: Range<Int>) -> [UInt8] {
    let inside = range.clamped(to: 0..<bytes.count)
    return Array(bytes[inside]) + [UInt8](repeating: 0, count: range.count - inside.count)
  }

  /// The first byte at which two pieces of a disk differ, for messages; nil where they are equal.
  public static func firstDifference(_ a: [UInt8], _ b: [UInt8]) -> Int? {
    if a.count == b.count && a.equals(b, from: 0, to: 0, count: a.count) { return nil }
    for index in 0..<Swift.min(a.count, b.count) where a[index] != b[index] { return index }
    return Swift.min(a.count, b.count)
  }
}

// By the C library: tests are built without optimization, where a loop over bytes takes its time.
extension [UInt8] {
  /// Replaces bytes; they must be there.
  mutating func overwrite(at offset: Int, with source: [UInt8]) {
    precondition(offset >= 0 && offset + source.count <= count)
    guard !source.isEmpty else { return }
    // SAFETY: in bounds by the precondition.
    unsafe withUnsafeMutableBytes { raw in
      unsafe source.withUnsafeBytes { from in
        unsafe UnsafeMutableRawBufferPointer(rebasing: raw[offset...]).copyMemory(from: from)
      }
    }
  }

  mutating func overwriteWithZeros(at offset: Int, count zeroCount: Int) {
    precondition(offset >= 0 && offset + zeroCount <= count)
    guard zeroCount > 0 else { return }
    // SAFETY: in bounds by the precondition.
    unsafe withUnsafeMutableBytes { raw in
      if let base = raw.baseAddress { _ = unsafe memset(base + offset, 0, zeroCount) }
    }
  }

  /// Whether `count` bytes from `from` on equal those of `other` from `to` on.
  public func equals(_ other: [UInt8], from: Int, to: Int, count length: Int) -> Bool {
    guard from >= 0, to >= 0, from + length <= count, to + length <= other.count else { return false }
    // SAFETY: in bounds by the guard.
    return unsafe withUnsafeBytes { a in
      unsafe other.withUnsafeBytes { b in
        guard let left = a.baseAddress, let right = b.baseAddress else { return true }
        return unsafe memcmp(left + from, right + to, length) == 0
      }
    }
  }

  /// Preferred to the standard library's, which compares element by element.
  public static func == (a: [UInt8], b: [UInt8]) -> Bool {
    a.count == b.count && a.equals(b, from: 0, to: 0, count: a.count)
  }
}

extension Collection<UInt8> {
  /// Whether all bytes are zeros.
  public var isZero: Bool { holdsOnly(0) }

  /// Whether every byte is this one.
  public func holdsOnly(_ byte: UInt8) -> Bool {
    let isEqual = withContiguousStorageIfAvailable { bytes in
      guard let first = bytes.baseAddress, bytes.count > 0 else { return true }
      // Each byte is the one before it.
      return unsafe first.pointee == byte && memcmp(first, first + 1, bytes.count - 1) == 0
    }
    return isEqual ?? allSatisfy { $0 == byte }
  }
}
