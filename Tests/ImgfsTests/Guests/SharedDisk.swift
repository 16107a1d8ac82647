import FormatEngine
import Foundation
import TestSupport

/// A disk that several threads write beside each other, and what may be in each of its blocks.
///
/// Each block belongs to one writer. A write has a number, which is in all its bytes with the number of the block; some
/// numbers stand for zeros. So whoever reads knows of each sector whether it may be what it is: for the owner only what it wrote
/// last, for others anything between what was done before they began and what was begun before they ended.
final class SharedDisk: Sendable {
  static let blockSize = 4096
  /// Half of the disk goes from writer to writer by blocks, so that they share each cluster; the other half by runs of
  /// these, which are written and let go of together.
  static let run = 32

  struct Block {
    /// The number of the write that was begun last, of the one that was done last, and of the last one that stands for zeros.
    var begun: UInt32 = 0
    var done: UInt32 = 0
    var zeros: UInt32 = 0
  }

  let blockCount: Int
  let writerCount: Int
  private let blocks: Guarded<[Block]>

  init(byteCount: Int, writers: Int) {
    blockCount = byteCount / Self.blockSize
    writerCount = writers
    blocks = Guarded([Block](repeating: Block(), count: blockCount))
  }

  /// What is known at this moment.
  var now: [Block] { blocks.withLock { $0 } }

  /// Blocks in a row that are all of one writer.
  func range(of writer: Int, _ random: inout SeededRandom) -> Range<Int> {
    let half = blockCount / 2
    if random.oneIn(2) {
      let block = random.below(half / writerCount) * writerCount + writer
      return block..<block + 1
    }
    let runs = half / Self.run / writerCount
    let start = half + (random.below(runs) * writerCount + writer) * Self.run + random.below(Self.run)
    let end = start / Self.run * Self.run + Self.run
    return start..<min(end, start + 1 + random.below(Self.run))
  }

  /// Whether write `number` stands for zeros.
  static func isZeros(_ number: UInt32) -> Bool { number == 0 || number &* 0x9E37_79B1 >> 30 == 0 }

  func begin(_ range: Range<Int>, _ number: UInt32) {
    blocks.withLock { blocks in
      for block in range {
        blocks[block].begun = number
        if Self.isZeros(number) { blocks[block].zeros = number }
      }
    }
  }

  func end(_ range: Range<Int>, _ number: UInt32) {
    blocks.withLock { blocks in for block in range { blocks[block].done = number } }
  }

  /// The word that fills block `block` after write `number`.
  static func word(_ block: Int, _ number: UInt32) -> UInt64 {
    isZeros(number) ? 0 : UInt64(number) << 32 | UInt64(block)
  }

  /// What is wrong with `words`, which begin with block `first` and were read between `before` and `after`; nil where nothing is.
  ///
  /// `isStill`: nobody wrote meanwhile, so that each sector is of one write. Who reads beside a writer gets words of both:
  /// the kernel copies bytes in and out of a page at the same time.
  static func complaint(
    _ words: [UInt64], first: Int, _ before: [Block], _ after: [Block], isStill: Bool = false
  ) -> String? {
    for index in 0..<words.count / wordsOfBlock {
      let (block, start) = (first + index, index * wordsOfBlock)
      let isRight = { (word: UInt64) in mayBe(word, block, before[block], after[block]) }
      if holdsOneWord(words, start, wordsOfBlock), isRight(words[start]) { continue }
      for sector in 0..<sectorsOfBlock {
        let range = start + sector * wordsOfSector..<start + (sector + 1) * wordsOfSector
        let isWhole = holdsOneWord(words, range.lowerBound, range.count)
        guard words[range].allSatisfy(isRight), isWhole || !isStill else {
          return
            "block \(block), sector \(sector): \(String(words[range.lowerBound], radix: 16)), whole: \(isWhole), "
            + "\(before[block]) to \(after[block])"
        }
      }
    }
    return nil
  }

  static let sectorsOfBlock = blockSize / 512
  static let wordsOfSector = 512 / 8
  static let wordsOfBlock = blockSize / 8

  private static func mayBe(_ word: UInt64, _ block: Int, _ before: Block, _ after: Block) -> Bool {
    if word == 0 { return after.zeros >= before.done }
    return word & 0xFFFF_FFFF == UInt64(block) && (before.done...after.begun).contains(UInt32(word >> 32))
  }

  private static func holdsOneWord(_ words: [UInt64], _ start: Int, _ count: Int) -> Bool {
    unsafe words.withUnsafeBytes { bytes in
      guard let first = unsafe bytes.baseAddress.map({ unsafe $0 + start * 8 }) else { return true }
      // SAFETY: `start` and `count` are of a block, or of a part of one, inside of `words`.
      return unsafe memcmp(first, first + 8, (count - 1) * 8) == 0
    }
  }
}
