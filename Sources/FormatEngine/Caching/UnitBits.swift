/// One bit for each unit of a file - a cluster, a sector - in memory that the system hands out page by page as it
/// is touched: how a check notes what it has come across.
@safe final class UnitBits {
  let count: UInt64
  private let words: UnsafeMutablePointer<UInt64>
  private var byteCount: Int { Int(count / 64 + 1) * 8 }

  /// 2^36 sectors are 32 TiB, and 8 GiB of bits if all of them are in use.
  private static let maximumCount: UInt64 = 1 << 36

  init(count: UInt64) throws(EngineError) {
    guard count <= Self.maximumCount else {
      throw EngineError(.tooLarge, "The image file has too many clusters to check (\(count))")
    }
    self.count = count
    let wordCount = Int(count / 64 + 1)
    guard let memory = unsafe AnonymousMemory.map(byteCount: wordCount * 8) else {
      throw EngineError(.system(errno: 12), "No memory to check an image file of \(count) clusters")
    }
    unsafe words = memory.bindMemory(to: UInt64.self, capacity: wordCount)
  }

  deinit { unsafe AnonymousMemory.unmap(words, byteCount: byteCount) }

  /// Units past the end are not set.
  subscript(index: UInt64) -> Bool {
    guard index < count else { return false }
    // SAFETY: there is a word for every bit below `count`.
    return unsafe words[Int(index / 64)] >> (index % 64) & 1 != 0
  }

  /// Sets the bits of a range, and says how many of them were set before. Units past the end are left out.
  func insert(_ range: Range<UInt64>) -> UInt64 {
    var repeated: UInt64 = 0
    let end = min(range.upperBound, count)
    guard range.lowerBound < end else { return 0 }
    var index = range.lowerBound
    while index < end {
      let bitCount = min(64 - index % 64, end - index)
      let mask = (UInt64.max >> (64 - bitCount)) << (index % 64)
      // SAFETY: as above.
      repeated += UInt64((unsafe words[Int(index / 64)] & mask).nonzeroBitCount)
      unsafe words[Int(index / 64)] |= mask
      index += bitCount
    }
    return repeated
  }

  /// How many bits of a range are not set.
  func clearCount(in range: Range<UInt64>) -> UInt64 {
    var clear: UInt64 = 0
    var index = range.lowerBound
    while index < min(range.upperBound, count) {
      if index % 64 == 0, index + 64 <= min(range.upperBound, count) {
        // SAFETY: as above.
        clear += UInt64(64 - (unsafe words[Int(index / 64)]).nonzeroBitCount)
        index += 64
      } else {
        if !self[index] { clear += 1 }
        index += 1
      }
    }
    return clear
  }

  /// One more than the last bit that is set, 0 where none is.
  var end: UInt64 {
    var index = count
    while index > 0 {
      if index % 64 == 0, unsafe words[Int(index / 64) - 1] == 0 {
        index -= 64
      } else if self[index - 1] {
        return index
      } else {
        index -= 1
      }
    }
    return 0
  }
}
