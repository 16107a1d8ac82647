import FormatEngine
import Testing

@Suite struct FieldsTests {
  private let bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 0xff]

  @Test func fieldsAreReadInTheirByteOrder() throws {
    try bytes.parsed { (span) throws(EngineError) in
      let big = try span.bigEndian(UInt32.self, at: 1)
      let little = try span.littleEndian(UInt16.self, at: 0)
      let whole = try span.bigEndian(UInt64.self, at: 1)
      let last = try span.bigEndian(UInt8.self, at: 8)
      #expect(big == 0x0203_0405 && little == 0x0201 && whole == 0x0203_0405_0607_08ff && last == 0xff)
    }
  }

  @Test(arguments: [-1, 6, 8, 9, Int.max, Int.min])
  func fieldsOutsideAreCorrupt(_ offset: Int) {
    #expect(throws: EngineError.self) {
      try bytes.parsed { (span) throws(EngineError) in try span.bigEndian(UInt32.self, at: offset) }
    }
    #expect(throws: EngineError.self) {
      try [UInt8]().parsed { (span) throws(EngineError) in try span.littleEndian(UInt8.self, at: 0) }
    }
  }

  @Test func rangesOutsideAreCorrupt() throws {
    #expect(try bytes.parsed { (span) throws(EngineError) in try span.bytes(in: 7..<9) } == [8, 0xff])
    for range in [7..<10, -1..<2, 0..<Int.max] {
      #expect(throws: EngineError.self) {
        try bytes.parsed { (span) throws(EngineError) in try span.bytes(in: range) }
      }
    }
  }

  @Test func textThatIsNoUTF8IsKept() throws {
    let text = try [0x61, 0xff, 0x62].parsed { (span) throws(EngineError) in try span.text(in: 0..<3) }
    #expect(text.hostBytes == [0x61, 0xff, 0x62])
  }

  @Test func integersAreAppendedInTheirByteOrder() {
    var list: [UInt8] = []
    list.append(bigEndian: UInt32(0x0102_0304))
    list.append(littleEndian: UInt16(0x0506))
    #expect(list == [1, 2, 3, 4, 6, 5])
    list.pad(toMultipleOf: 8)
    #expect(list.count == 8)
    list.put(bigEndian: UInt16(0xaabb), at: 6)
    #expect(list[6...] == [0xaa, 0xbb])
  }
}
