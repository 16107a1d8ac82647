import TestSupport
import Testing

@testable import FormatEngine

@Suite struct DirtyBitsTests {
  private func runs(_ bits: DirtyBits) throws -> [Range<UInt64>] {
    var runs: [Range<UInt64>] = []
    try bits.forEachRun { (run) throws(EngineError) in runs.append(run) }
    return runs
  }

  /// Granules as a plain array.
  private struct Model {
    var dirty: [Bool]
    let granularity: Int
    let size: Int

    init(granularity: Int, size: Int) {
      (self.granularity, self.size) = (granularity, size)
      dirty = [Bool](repeating: false, count: (size + granularity - 1) / granularity)
    }

    mutating func insert(_ range: Range<Int>) {
      for index in range.lowerBound / granularity...(range.upperBound - 1) / granularity {
        dirty[index] = true
      }
    }

    var runs: [Range<UInt64>] {
      var result: [Range<UInt64>] = []
      for (index, isDirty) in dirty.enumerated() where isDirty {
        let (start, end) = (UInt64(index * granularity), UInt64(min((index + 1) * granularity, size)))
        if let last = result.last, last.upperBound == start {
          result[result.count - 1] = last.lowerBound..<end
        } else {
          result.append(start..<end)
        }
      }
      return result
    }
  }

  @Test func runsAreThoseOfAPlainArray() throws {
    var random = SeededRandom.fromEnvironment(or: 71)
    for round in 0..<20 {
      let size = 1 + random.below(8 << 20)
      var model = Model(granularity: 512, size: size)
      var bits = DirtyBits(granularityBits: 9, virtualSize: UInt64(size))
      for _ in 0..<random.below(40) {
        let range = random.range(in: size, most: random.oneIn(4) ? size : 9000)
        model.insert(range)
        bits.insert(UInt64(range.lowerBound)..<UInt64(range.upperBound))
      }
      #expect(try runs(bits) == model.runs, "round \(round), \(random)")
      let bytes = bytes(of: bits, count: 2048)
      for index in 0..<2048 * 8 {
        let isSet = bytes[index / 8] >> UInt8(index % 8) & 1 == 1
        #expect(isSet == (index < model.dirty.count && model.dirty[index]), "bit \(index), \(random)")
        if isSet != (index < model.dirty.count && model.dirty[index]) { return }
      }
    }
  }

  private func bytes(of bits: DirtyBits, count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    for part in bits.parts(of: 4096) {
      var piece = [UInt8](repeating: 0, count: 512)
      bits.merge(into: &piece, from: part * 4096)
      bytes.replaceSubrange(Int(part) * 512..<Int(part + 1) * 512, with: piece)
    }
    return bytes
  }

  @Test func nothingBeyondTheDiskIsDirty() throws {
    var bits = DirtyBits(granularityBits: 16, virtualSize: 100_000)
    bits.insert(99_999..<UInt64.max)
    #expect(try runs(bits) == [65536..<100_000])
    bits.insert(100_000..<200_000)
    #expect(try runs(bits) == [65536..<100_000])
    #expect(!bits.isFull(part: 0, of: 4096))
    bits.insert(5..<5)
    #expect(try runs(bits) == [65536..<100_000])
  }

  @Test func aWholeHugeDiskTakesLittleRoom() throws {
    try Deadline.within(seconds: 20, "2^30 bits") {
      var bits = DirtyBits(granularityBits: 18, virtualSize: 1 << 48)
      bits.insert(0..<1 << 48)
      let found = try runs(bits)
      #expect(found == [0..<1 << 48])
    }
  }
}
