internal import CBzip2
internal import CLzma
import TestSupport

@testable import FormatEngine

/// Packed bytes for images that the tests put together. There is no encoder for LZFSE here: its streams were made once
/// from `text(...)` by liblzfse's encoder.
enum PackedSamples {
  /// Lines that repeat much.
  static func text(_ count: Int, from first: Int = 0) -> [UInt8] {
    var bytes: [UInt8] = []
    var number = first
    while bytes.count < count {
      bytes += Array("line \(number) of \(number * number % 977)\n".utf8)
      number += 1
    }
    return Array(bytes.prefix(count))
  }

  static func bzip2(_ bytes: [UInt8]) throws -> [UInt8] {
    var source = bytes
    var packed = [CChar](repeating: 0, count: bytes.count + bytes.count / 100 + 600)
    var count = UInt32(packed.count)
    let result = unsafe source.withUnsafeMutableBytes { raw in
      unsafe BZ2_bzBuffToBuffCompress(
        &packed, &count, raw.bindMemory(to: CChar.self).baseAddress, UInt32(raw.count), 9, 0, 0)
    }
    guard result == BZ_OK else { throw TestFailure("bzip2: \(result)") }
    return packed.prefix(Int(count)).map { UInt8(bitPattern: $0) }
  }

  static func xz(_ bytes: [UInt8], preset: UInt32 = 6) throws -> [UInt8] {
    var packed = [UInt8](repeating: 0, count: lzma_stream_buffer_bound(bytes.count))
    var count = 0
    let result = unsafe lzma_easy_buffer_encode(
      preset, LZMA_CHECK_CRC32, nil, bytes, bytes.count, &packed, &count, packed.count)
    guard result == LZMA_OK else { throw TestFailure("xz: \(result)") }
    return Array(packed.prefix(count))
  }

  /// Repetitions of all three kinds of code, found by their first three bytes.
  static func adc(_ bytes: [UInt8]) -> [UInt8] {
    var (packed, literals): ([UInt8], [UInt8]) = ([], [])
    var places: [Int: Int] = [:]
    func flush() {
      for start in stride(from: 0, to: literals.count, by: 128) {
        let run = literals[start..<min(start + 128, literals.count)]
        packed.append(0x80 | UInt8(run.count - 1))
        packed += run
      }
      literals = []
    }
    var position = 0
    while position < bytes.count {
      guard position + 3 <= bytes.count else {
        literals.append(bytes[position])
        position += 1
        continue
      }
      let key = Int(bytes[position]) << 16 | Int(bytes[position + 1]) << 8 | Int(bytes[position + 2])
      let earlier = places[key]
      places[key] = position
      guard let earlier, position - earlier <= 65536 else {
        literals.append(bytes[position])
        position += 1
        continue
      }
      var count = 3
      while count < 67, position + count < bytes.count, bytes[earlier + count] == bytes[position + count] {
        count += 1
      }
      let distance = position - earlier - 1
      if distance < 1024, count <= 18 {
        flush()
        packed += [UInt8((count - 3) << 2 | distance >> 8), UInt8(distance & 255)]
      } else if count >= 4 {
        flush()
        packed += [0x40 | UInt8(count - 4), UInt8(distance >> 8), UInt8(distance & 255)]
      } else {
        literals.append(bytes[position])
        count = 1
      }
      position += count
    }
    flush()
    return packed
  }

  /// A stream of LZFSE's plain blocks.
  static func plainLZFSE(_ bytes: [UInt8]) -> [UInt8] {
    var stream: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 100_000) {
      let run = bytes[start..<min(start + 100_000, bytes.count)]
      stream += Array("bvx-".utf8)
      stream.append(littleEndian: UInt32(run.count))
      stream += run
    }
    return stream + Array("bvx$".utf8)
  }
}

/// Checksums and base64 as their definitions have them.
enum PlainSums {
  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xedb8_8320 }
  }

  static func crc32(_ bytes: [UInt8], from start: UInt32 = 0) -> UInt32 {
    ~bytes.reduce(~start) { table[Int(($0 ^ UInt32($1)) & 255)] ^ $0 >> 8 }
  }

  static func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    var text = ""
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let three = (0..<3).map { start + $0 < bytes.count ? Int(bytes[start + $0]) : 0 }
      let word = three[0] << 16 | three[1] << 8 | three[2]
      for place in 0..<4 {
        text.append(
          start + place - 1 < bytes.count || place < 2 ? digits[word >> (18 - 6 * place) & 63] : "=")
      }
      if start % 54 == 51 { text += "\n" }
    }
    return text
  }
}
