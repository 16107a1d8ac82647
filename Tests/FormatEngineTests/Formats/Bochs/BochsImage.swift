import FormatEngine
import TestSupport

/// Puts a growing redolog of the Bochs emulator together.
struct BochsImage {
  var isVersion1 = false
  var extentSize = 65536
  /// As the header has it; in the file it takes whole sectors.
  var bitmapSize = 512

  static let catalogOffset = 512

  /// A disk with some extents stored, in any order, and some sectors of them.
  func build(byteCount: Int, _ random: inout SeededRandom) throws -> BuiltImage {
    let extentCount = (byteCount + extentSize - 1) / extentSize
    var catalog = [UInt32](repeating: .max, count: extentCount + 3)
    var disk = [UInt8](repeating: 0, count: extentCount * extentSize)
    var body: [UInt8] = []
    let stored = (0..<extentCount).filter { _ in !random.oneIn(3) }.shuffled(using: &random)
    for (number, index) in stored.enumerated() {
      catalog[index] = UInt32(number)
      body += extent(&disk, at: index * extentSize, &random)
    }
    var file = header(byteCount: byteCount, catalogCount: catalog.count)
    for entry in catalog { file.append(littleEndian: entry) }
    return BuiltImage(file: file + body, disk: Array(disk.prefix(byteCount)))
  }

  /// A bitmap and the sectors behind it; those that count go to the disk as well.
  private func extent(_ disk: inout [UInt8], at start: Int, _ random: inout SeededRandom) -> [UInt8] {
    var bitmap = [UInt8](repeating: 0, count: (bitmapSize + 511) / 512 * 512)
    var data = random.bytes(extentSize)
    var sector = 0
    while sector < extentSize / 512 {
      let end = min(sector + 1 + random.below(40), extentSize / 512)
      if !random.oneIn(3) {
        for number in sector..<end {
          bitmap[number / 8] |= 1 << UInt8(number % 8)
          let bytes = random.fill(512)
          data.replaceSubrange(number * 512..<number * 512 + 512, with: bytes)
          disk.replaceSubrange(start + number * 512..<start + number * 512 + 512, with: bytes)
        }
      }
      sector = end
    }
    return bitmap + data
  }

  func header(byteCount: Int, catalogCount: Int) -> [UInt8] {
    var file: [UInt8] = []
    for (text, length) in [("Bochs Virtual HD Image", 32), ("Redolog", 16), ("Growing", 16)] {
      file += Array(text.utf8) + [UInt8](repeating: 0, count: length - text.utf8.count)
    }
    file.append(littleEndian: UInt32(isVersion1 ? 0x10000 : 0x20000))
    file.append(littleEndian: UInt32(512))
    file.append(littleEndian: UInt32(catalogCount))
    file.append(littleEndian: UInt32(bitmapSize))
    file.append(littleEndian: UInt32(extentSize))
    if !isVersion1 { file.append(littleEndian: UInt32(0x5f0c_1a2b)) }
    file.append(littleEndian: UInt64(byteCount))
    file.pad(toMultipleOf: 512)
    return file
  }
}
