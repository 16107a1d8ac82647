import FormatEngine
import TestSupport

/// Puts a compressed loop image together.
struct CLoopImage {
  var blockSize: Int

  static let offsetsOffset = 136

  /// Blocks of zeros, of one value, and of bytes that do not pack.
  func build(blockCount: Int, _ random: inout SeededRandom) throws -> BuiltImage {
    var (disk, blocks): ([UInt8], [[UInt8]]) = ([], [])
    for _ in 0..<blockCount {
      let bytes: [UInt8] =
        switch random.below(4) {
        case 0: [UInt8](repeating: 0, count: blockSize)
        case 1: random.bytes(blockSize)
        default: random.fill(blockSize / 2) + random.fill(blockSize - blockSize / 2)
        }
      disk += bytes
      blocks.append(try ZlibText.pack(bytes))
    }
    return BuiltImage(file: file(blocks), disk: disk)
  }

  func file(_ blocks: [[UInt8]]) -> [UInt8] {
    var file = Array(
      ("#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n").utf8
    )
    file.pad(toMultipleOf: 128)
    file.append(bigEndian: UInt32(blockSize))
    file.append(bigEndian: UInt32(blocks.count))
    var offset = UInt64(Self.offsetsOffset + (blocks.count + 1) * 8)
    file.append(bigEndian: offset)
    for block in blocks {
      offset += UInt64(block.count)
      file.append(bigEndian: offset)
    }
    return file + blocks.joined()
  }
}
