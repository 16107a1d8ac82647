@testable import FormatEngine

/// zlib streams (RFC 1950) for images that the tests put together.
enum ZlibText {
  static func pack(_ bytes: [UInt8]) throws -> [UInt8] {
    let packer = try DeflatePacker(.raw, level: 6)
    var packed = [UInt8](repeating: 0, count: bytes.count + bytes.count / 100 + 64)
    let count = try unsafe bytes.withUnsafeBytes { source in
      try unsafe packed.withUnsafeMutableBytes { target in try unsafe packer.pack(source, into: target) }
    }
    var result: [UInt8] = [0x78, 0x9c] + packed.prefix(count ?? 0)
    result.append(bigEndian: adler32(bytes))
    return result
  }

  private static func adler32(_ bytes: [UInt8]) -> UInt32 {
    var (low, high): (UInt32, UInt32) = (1, 0)
    for byte in bytes {
      low = (low + UInt32(byte)) % 65521
      high = (high + low) % 65521
    }
    return high << 16 | low
  }
}
