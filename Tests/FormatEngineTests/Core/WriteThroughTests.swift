import FormatEngine
import TestSupport
import Testing

/// Cache modes of whole images.
@Suite struct WriteThroughTests {
  /// Who writes through needs no flush: another reader of the file finds the bytes by the tables on disk.
  @Test(arguments: ConformanceRow.writable.firstOfEachFormat)
  func bytesAreThereWithoutAFlush(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      var fixture = fixture
      fixture.cache = .writethrough
      let chain = try fixture.open(.readWrite).unlocked()
      let offset = UInt64(fixture.model.byteCount / 2).aligned(downTo: 512)
      for step in 0..<3 {
        let bytes = [UInt8](repeating: UInt8(1 + step), count: 70_000)
        try chain.writeBytes(bytes, at: offset)
        fixture.cache = .writeback
        let other = try fixture.open().unlocked()
        #expect(try other.readBytes(at: offset, count: bytes.count) == bytes, "step \(step)")
      }
      try chain.close()
    }
  }
}
