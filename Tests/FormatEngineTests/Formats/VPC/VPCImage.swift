import FormatEngine
import TestSupport

/// Bytes of a VHD, put together by the specification and by nothing of the engine.
struct VPCImage {
  var blockSize = 4096
  var isDifferencing = false
  var creator = "win "
  var parentID: [UInt8] = (0..<16).map { $0 + 7 }
  var relativeParent = ".\\base.vhd"
  var absoluteParent: String?

  static let footerByteCount = 512
  private static let headerOffset = 512

  func put(_ value: some FixedWidthInteger, _ bytes: inout [UInt8], at offset: Int) {
    bytes.put(bigEndian: value, at: offset)
  }

  /// Sets the checksum at `field` right, of the structure of `count` bytes from `start` on.
  static func seal(_ bytes: inout [UInt8], from start: Int, count: Int, field: Int) {
    bytes.put(bigEndian: UInt32(0), at: start + field)
    let sum = bytes[start..<start + count].reduce(UInt32(0)) { $0 &+ UInt32($1) }
    bytes.put(bigEndian: ~sum, at: start + field)
  }

  static func sealFooter(_ bytes: inout [UInt8], at start: Int) {
    seal(&bytes, from: start, count: footerByteCount, field: 64)
  }

  static func sealHeader(_ bytes: inout [UInt8]) { seal(&bytes, from: headerOffset, count: 1024, field: 36) }

  func footer(byteCount: Int, type: UInt32, id: [UInt8]) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.footerByteCount)
    bytes.replaceSubrange(0..<8, with: Array("conectix".utf8))
    put(UInt32(2), &bytes, at: 8)
    put(UInt32(0x1_0000), &bytes, at: 12)
    put(type == 2 ? UInt64.max : UInt64(Self.headerOffset), &bytes, at: 16)
    bytes.replaceSubrange(28..<32, with: Array(creator.utf8))
    bytes.replaceSubrange(36..<40, with: Array("Wi2k".utf8))
    put(UInt64(byteCount), &bytes, at: 40)
    put(UInt64(byteCount), &bytes, at: 48)
    // The largest: everybody goes by the size then.
    put(UInt32(0xffff_10ff), &bytes, at: 56)
    put(type, &bytes, at: 60)
    bytes.replaceSubrange(68..<84, with: id)
    Self.sealFooter(&bytes, at: 0)
    return bytes
  }

  /// A fixed disk.
  func fixed(_ disk: [UInt8], id: [UInt8]) -> [UInt8] {
    disk + footer(byteCount: disk.count, type: 2, id: id)
  }

  private func header(tableOffset: Int, blockCount: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 1024)
    bytes.replaceSubrange(0..<8, with: Array("cxsparse".utf8))
    put(UInt64.max, &bytes, at: 8)
    put(UInt64(tableOffset), &bytes, at: 16)
    put(UInt32(0x1_0000), &bytes, at: 24)
    put(UInt32(blockCount), &bytes, at: 28)
    put(UInt32(blockSize), &bytes, at: 32)
    if isDifferencing { bytes.replaceSubrange(40..<56, with: parentID) }
    return bytes
  }

  private static func wide(_ text: String) -> [UInt8] {
    text.utf16.flatMap { [UInt8($0 & 0xff), UInt8($0 >> 8)] }
  }

  /// Header, locators and an empty table; the blocks follow.
  private func prologue(byteCount: Int) -> (bytes: [UInt8], tableOffset: Int) {
    let blockCount = (byteCount + blockSize - 1) / blockSize
    var tableOffset = 1536
    var paths: [UInt8] = []
    var locators: [(Int, String, Int)] = []
    if isDifferencing {
      for (index, (code, path)) in [("W2ru", relativeParent), ("W2ku", absoluteParent ?? "")].enumerated()
      where !path.isEmpty {
        let bytes = Self.wide(path)
        locators.append((index, code, bytes.count))
        paths += bytes
        paths.pad(toMultipleOf: 512)
        tableOffset = 1536 + paths.count
      }
    }
    var bytes = header(tableOffset: tableOffset, blockCount: blockCount)
    var position = 1536
    for (index, code, count) in locators {
      let field = 576 + 24 * index
      bytes.replaceSubrange(field..<field + 4, with: Array(code.utf8))
      put(UInt32(512), &bytes, at: field + 4)
      put(UInt32(count), &bytes, at: field + 8)
      put(UInt64(position), &bytes, at: field + 16)
      position += (count + 511) / 512 * 512
    }
    var all =
      footer(byteCount: byteCount, type: isDifferencing ? 4 : 3, id: (0..<16).map { 100 + $0 }) + bytes
    Self.sealHeader(&all)
    all += paths
    all += [UInt8](repeating: 0xff, count: (blockCount * 4 + 511) / 512 * 512)
    return (all, tableOffset)
  }

  /// A disk without blocks.
  func empty(byteCount: Int) -> [UInt8] {
    let bytes = prologue(byteCount: byteCount).bytes
    return bytes + bytes[0..<512]
  }

  /// A disk with some blocks in any order, over random bytes where it is a differencing one.
  func build(byteCount: Int, _ random: inout SeededRandom) throws -> BuiltImage {
    let blockCount = (byteCount + blockSize - 1) / blockSize
    let below = isDifferencing ? random.bytes(byteCount) : [UInt8](repeating: 0, count: byteCount)
    var disk = below
    var (file, tableOffset) = prologue(byteCount: byteCount)
    var stored = (0..<blockCount).filter { _ in random.below(3) > 0 }
    for index in stored.indices { stored.swapAt(index, index + random.below(stored.count - index)) }
    let bitmapSize = (blockSize / 512 / 8 + 511) / 512 * 512
    for index in stored {
      put(UInt32(file.count / 512), &file, at: tableOffset + 4 * index)
      var bitmap = [UInt8](repeating: 0, count: bitmapSize)
      let content = random.bytes(blockSize)
      for sector in 0..<blockSize / 512 {
        let isSet = random.oneIn(2)
        if isSet { bitmap[sector / 8] |= 0x80 >> UInt8(sector % 8) }
        // Of a dynamic disk's bitmaps nobody takes notice.
        guard isSet || !isDifferencing else { continue }
        for byte in sector * 512..<sector * 512 + 512 where index * blockSize + byte < byteCount {
          disk[index * blockSize + byte] = content[byte]
        }
      }
      file += bitmap + content
    }
    file += file[0..<512]
    guard isDifferencing else { return BuiltImage(file: file, disk: disk) }
    return BuiltImage(
      file: file, disk: disk, isJudged: false, others: ["base.vhd": fixed(below, id: parentID)], below: below)
  }
}
