import FormatEngine
import Testing

@Suite struct ByteCountsTests {
  @Test func checkedArithmeticGivesTheResult() throws {
    #expect(try UInt64(5).adding(7, orCorrupt: "sum") == 12)
    #expect(try UInt64(7).subtracting(5, orCorrupt: "difference") == 2)
    #expect(try UInt32(7).multiplied(by: 6, orCorrupt: "product") == 42)
    #expect(try UInt64.max.adding(0, orCorrupt: "sum") == UInt64.max)
  }

  @Test func overflowIsCorruptAndSaysWhat() {
    func expectOverflow(_ attempt: () throws -> Void) {
      let error = #expect(throws: EngineError.self) { try attempt() }
      #expect(error?.code == .corrupt && error?.message == "the end is out of range")
    }
    let (zero, top, small) = (UInt64(0), UInt64.max, UInt8(200))
    expectOverflow { _ = try top.adding(1, orCorrupt: "the end") }
    expectOverflow { _ = try zero.subtracting(1, orCorrupt: "the end") }
    expectOverflow { _ = try top.multiplied(by: 2, orCorrupt: "the end") }
    expectOverflow { _ = try small.adding(small, orCorrupt: "the end") }
  }

  @Test(
    arguments: [(0, 0, 0), (1, 0, 512), (511, 0, 512), (512, 512, 512), (513, 512, 1024)]
      as [(UInt64, UInt64, UInt64)])
  func alignmentRoundsToUnits(_ value: UInt64, _ down: UInt64, _ up: UInt64) {
    #expect(value.aligned(downTo: 512) == down)
    #expect(value.aligned(upTo: 512) == up)
    #expect(value.isAligned(to: 512) == (down == up))
  }

  @Test func divisionRoundsUpWithoutOverflow() {
    #expect(UInt64(0).dividedRoundingUp(by: 8) == 0)
    #expect(UInt64(1).dividedRoundingUp(by: 8) == 1)
    #expect(UInt64(8).dividedRoundingUp(by: 8) == 1)
    #expect(UInt64.max.dividedRoundingUp(by: 2) == 1 << 63)
    #expect(UInt64.max.dividedRoundingUp(by: 1) == UInt64.max)
  }
}
