import FormatEngine
import TestSupport
import Testing

@Suite struct ZeroScanTests {
  private func isZero(_ bytes: [UInt8], from start: Int = 0) -> Bool {
    unsafe bytes.withUnsafeBytes { unsafe ZeroScan.isZero(UnsafeRawBufferPointer(rebasing: $0[start...])) }
  }

  @Test func everyPositionOfASingleByteIsSeen() {
    for length in [1, 7, 8, 9, 255, 256, 257, 263, 512, 1031] {
      var bytes = [UInt8](repeating: 0, count: length)
      #expect(isZero(bytes))
      for position in 0..<length {
        bytes[position] = 1
        #expect(!isZero(bytes), "byte \(position) of \(length)")
        bytes[position] = 0
      }
    }
  }

  @Test func unalignedStartsAreRead() {
    var bytes = [UInt8](repeating: 0, count: 600)
    bytes[0] = 1
    for start in 1..<20 { #expect(isZero(bytes, from: start)) }
    #expect(isZero([]))
  }

  @Test func runsOfBlocksAlternate() {
    var random = SeededRandom.fromEnvironment(or: 91)
    for _ in 0..<50 {
      let blocks = (0..<1 + random.below(12)).map { _ in random.oneIn(2) }
      var bytes: [UInt8] = []
      for isZero in blocks { bytes += [UInt8](repeating: isZero ? 0 : 3, count: 512) }
      bytes.removeLast(random.below(512))
      unsafe bytes.withUnsafeBytes { raw in
        var position = 0
        while position < raw.count {
          let run = unsafe ZeroScan.run(in: raw, from: position, block: 512)
          #expect(run.length > 0)
          #expect(run.isZero == blocks[position / 512])
          let end = position + run.length
          #expect(end == raw.count || blocks[end / 512] != run.isZero)
          for block in position / 512..<(end + 511) / 512 { #expect(blocks[block] == run.isZero) }
          position = end
        }
      }
    }
  }
}
