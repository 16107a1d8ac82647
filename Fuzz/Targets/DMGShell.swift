import FormatEngine
import TestSupport

/// Puts a DMG together around what an input says.
enum DMGShell {
  /// A chunk of a block table (Docs/Formats/dmg.md).
  struct Chunk {
    var kind: UInt32
    var sectorCount: UInt64
    var offset: UInt64
    var byteCount: UInt64
  }

  static func image(dataFork: [UInt8], propertyList: [UInt8]) throws(EngineError) -> SparseStore {
    var trailer = [UInt8](repeating: 0, count: 512)
    trailer.put(bigEndian: UInt32(0x6b6f_6c79), at: 0)
    trailer.put(bigEndian: UInt32(4), at: 4)
    trailer.put(bigEndian: UInt32(512), at: 8)
    trailer.put(bigEndian: UInt64(dataFork.count), at: 32)
    trailer.put(bigEndian: UInt64(0x1_0000_0001), at: 56)
    trailer.put(bigEndian: UInt64(dataFork.count), at: 216)
    trailer.put(bigEndian: UInt64(propertyList.count), at: 224)
    trailer.put(bigEndian: UInt64(4096), at: 492)
    let store = SparseStore()
    try store.write(bytes: dataFork + propertyList + trailer, at: 0)
    return store
  }

  /// The list of an image with one block table.
  static func propertyList(_ chunks: [Chunk]) -> [UInt8] {
    var table = [UInt8](repeating: 0, count: 204)
    table.put(bigEndian: UInt32(0x6d69_7368), at: 0)
    table.put(bigEndian: UInt32(1), at: 4)
    table.put(bigEndian: UInt32(chunks.count), at: 200)
    var sector: UInt64 = 0
    for chunk in chunks {
      table.append(bigEndian: chunk.kind)
      table.append(bigEndian: UInt32(0))
      for number in [sector, chunk.sectorCount, chunk.offset, chunk.byteCount] {
        table.append(bigEndian: number)
      }
      sector &+= chunk.sectorCount
    }
    return Array(
      """
      <plist version="1.0"><dict><key>resource-fork</key><dict><key>blkx</key><array>
      <dict><key>ID</key><string>0</string><key>Data</key><data>\(base64(table))</data></dict>
      </array></dict></dict></plist>
      """.utf8)
  }

  private static func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".unicodeScalars)
    var text = ""
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let word = (0..<3).reduce(0) { $0 << 8 | Int($1 < group.count ? group[start + $1] : 0) }
      for digit in 0..<4 {
        text.unicodeScalars.append(digit <= group.count ? digits[word >> (18 - 6 * digit) & 63] : "=")
      }
    }
    return text
  }
}
