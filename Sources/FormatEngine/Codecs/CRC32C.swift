internal import CChecksum

/// CRC-32C (Castagnoli): by the processor where it can, else by tables, eight bytes a step.
package struct CRC32C {
  private var state: UInt32 = 0xffff_ffff
  private let usesProcessor: Bool

  /// `usesProcessor`: false for the tables, whatever the processor can do.
  init(usesProcessor: Bool = true) { self.usesProcessor = usesProcessor && Self.processorHasIt }

  private static let processorHasIt = checksum_has_crc32c() != 0

  /// The checksum of all bytes that were added.
  var value: UInt32 { ~state }

  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress else { return }
    if usesProcessor {
      unsafe state = checksum_crc32c(state, start, bytes.count)
    } else {
      unsafe addByTables(bytes)
    }
  }

  mutating func add(_ bytes: [UInt8]) { unsafe bytes.withUnsafeBytes { unsafe add($0) } }

  package static func checksum(of bytes: [UInt8]) -> UInt32 {
    var sum = CRC32C()
    sum.add(bytes)
    return sum.value
  }

  // MARK: Tables

  /// Table `k`, from index 256 * k on: the remainder of a byte with `k` zero bytes behind it.
  private static let tables: [UInt32] = {
    var tables = [UInt32](repeating: 0, count: 8 * 256)
    for byte in 0..<256 {
      var remainder = UInt32(byte)
      for _ in 0..<8 { remainder = remainder & 1 == 0 ? remainder >> 1 : remainder >> 1 ^ 0x82f6_3b78 }
      tables[byte] = remainder
    }
    for index in 256..<8 * 256 {
      let before = tables[index - 256]
      tables[index] = before >> 8 ^ tables[Int(before & 0xff)]
    }
    return tables
  }()

  private mutating func addByTables(_ bytes: UnsafeRawBufferPointer) {
    var state = state
    unsafe Self.tables.withUnsafeBufferPointer { table in
      var position = 0
      // SAFETY: eight bytes from `position` on lie in the buffer, and every index is below 8 * 256.
      while position + 8 <= bytes.count {
        let word =
          unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self))
          ^ UInt64(state)
        state = 0
        for byte in 0..<8 {
          unsafe state ^= table[(7 - byte) * 256 + Int((word >> UInt64(8 * byte)) & 0xff)]
        }
        position += 8
      }
      while position < bytes.count {
        unsafe state = state >> 8 ^ table[Int((state ^ UInt32(bytes[position])) & 0xff)]
        position += 1
      }
    }
    self.state = state
  }
}
