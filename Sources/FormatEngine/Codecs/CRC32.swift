internal import CDeflate
internal import CZlib

/// The checksum of zlib and many others (polynomial 0x04C11DB7, reflected), as bytes come.
package struct CRC32: Equatable, Sendable {
  /// Of no bytes: 0.
  private(set) var value: UInt32 = 0

  /// `register`: what the checksum starts from; some formats have a number of their own there.
  package static func checksum(of bytes: [UInt8], from register: UInt32 = ~0) -> UInt32 {
    var sum = CRC32()
    sum.value = ~register
    unsafe bytes.withUnsafeBytes { unsafe sum.append($0) }
    return sum.value
  }

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    value = unsafe libdeflate_crc32(value, bytes.baseAddress, bytes.count)
  }

  /// As many zeros, without going through them: `count` below 2^63.
  mutating func append(zeros count: UInt64) {
    // The checksum of 1, 2, 4, ... zeros, each from the one before.
    var run: UInt = unsafe [UInt8](repeating: 0, count: 1).withUnsafeBytes {
      UInt(unsafe libdeflate_crc32(0, $0.baseAddress, 1))
    }
    for bit in 0..<UInt64(63) {
      let byteCount = UInt64(1) << bit
      guard byteCount <= count else { break }
      if count & byteCount != 0 {
        value = UInt32(truncatingIfNeeded: crc32_combine(UInt(value), run, Int(byteCount)))
      }
      run = crc32_combine(run, run, Int(byteCount))
    }
  }
}
