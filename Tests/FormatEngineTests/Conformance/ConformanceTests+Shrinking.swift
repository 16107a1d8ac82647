import FormatEngine
import Foundation
import TestSupport
import Testing

/// Files that somebody else changes while they are open: what is gone is an error, never zeros and never a trap.
extension ConformanceTests {
  @Test(arguments: ConformanceRow.oneOfEachKind)
  func whatIsCutOffOfAnOpenFileIsAnError(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let model = fixture.model
      let chain = try fixture.open()
      // Of plain bytes nothing is left, of all else some tables may be.
      let part = row.format == "raw" ? 0 : 0.4
      for name in try fixture.folder.names() where !name.hasPrefix("base") {
        let handle = try #require(FileHandle(forUpdatingAtPath: fixture.folder.file(name)))
        try handle.truncate(atOffset: UInt64(Double(try handle.seekToEnd()) * part))
        try handle.close()
      }
      var failed = 0
      for start in stride(from: 0, to: model.byteCount, by: 65_536) {
        let count = min(65_536, model.byteCount - start)
        if let found = try? chain.extent(at: UInt64(start), limit: UInt64(count)), found.readsAsZeros {
          #expect(model.read(at: start, count: Int(found.extent.length)).isZero, "hole at \(start)")
        }
        guard let bytes = try? chain.readBytes(at: UInt64(start), count: count) else {
          failed += 1
          continue
        }
        let wrong = ModelDisk.firstDifference(bytes, model.read(at: start, count: count))
        #expect(wrong == nil, "read at \(start)")
      }
      if part == 0 { #expect(failed == (model.byteCount + 65_535) / 65_536) }
    }
  }

  @Test(arguments: ConformanceRow.oneOfEachKind)
  func anOpenFileThatBecomesRubbishIsNoTrap(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 61)
    try row.withFixture { fixture in
      let chain = try fixture.open()
      for name in try fixture.folder.names() {
        let handle = try #require(FileHandle(forUpdatingAtPath: fixture.folder.file(name)))
        let size = Int(try handle.seekToEnd())
        for start in stride(from: size / 3, to: size, by: 8192) {
          try handle.seek(toOffset: UInt64(start))
          try handle.write(contentsOf: Data(random.bytes(min(4096, size - start))))
        }
        try handle.close()
      }
      for start in stride(from: 0, to: Int(chain.virtualSize), by: 65_536) {
        let count = min(65_536, Int(chain.virtualSize) - start)
        _ = try? chain.readBytes(at: UInt64(start), count: count)
        _ = try? chain.extent(at: UInt64(start), limit: UInt64(count))
      }
    }
  }
}
