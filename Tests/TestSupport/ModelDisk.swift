/// A disk as plain bytes: what every image must read like, whatever its format does inside.
public struct ModelDisk: Equatable, Sendable {
  public private(set) var bytes: [UInt8]

  /// A disk of zeros.
  public init(byteCount: Int) { bytes = [UInt8](repeating: 0, count: byteCount) }

  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  public var byteCount: Int { bytes.count }

  public func read(at offset: Int, count: Int) -> [UInt8] { Array(bytes[offset..<offset + count]) }

  public mutating func write(_ source: [UInt8], at offset: Int) {
    bytes.replaceSubrange(offset..<offset + source.count, with: source)
  }

  public mutating func writeZeros(at offset: Int, count: Int) {
    bytes.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
  }

  /// Takes over what an image reads after a discard, when that is allowed: each block of 512 bytes reads
  /// as before, as zeros, or as `below` does. Says where it is not.
  public mutating func discard(at offset: Int, reading now: [UInt8], below: ModelDisk?) -> Int? {
    var position = offset
    let end = offset + now.count
    while position < end {
      let next = Swift.min(end, (position / 512 + 1) * 512)
      let block = now[position - offset..<next - offset]
      let isAllowed =
        block == bytes[position..<next] || block.allSatisfy { $0 == 0 }
        || below.map { block == $0.padded(position..<next)[...] } == true
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
    if a == b { return nil }
    for index in 0..<Swift.min(a.count, b.count) where a[index] != b[index] { return index }
    return Swift.min(a.count, b.count)
  }
}
