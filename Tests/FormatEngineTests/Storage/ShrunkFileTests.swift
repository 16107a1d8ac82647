import FormatEngine
import Foundation
import TestSupport
import Testing

/// What a file store reads of a file that somebody else makes shorter.
@Suite struct ShrunkFileTests {
  private static func truncate(_ path: String, to size: UInt64) throws {
    let handle = try #require(FileHandle(forWritingAtPath: path))
    try handle.truncate(atOffset: size)
    try handle.close()
  }

  @Test(arguments: [CacheMode.writeback, .direct]) func whatIsGoneIsAnError(_ cache: CacheMode) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 7, count: 100_000), to: "file")
      guard let store = try? FileStore.open(path, access: .readOnly, cache: cache) else { return }
      #expect(
        try store.bytes(at: 99_000, count: 2000) == Array(repeating: 7, count: 1000)
          + Array(repeating: 0, count: 1000))
      try Self.truncate(path, to: 50_000)
      #expect(try store.bytes(at: 40_000, count: 10_000).holdsOnly(7))
      for (offset, count) in [(UInt64(49_999), 2), (50_000, 1), (99_999, 10), (60_000, 4096)] {
        let error = #expect(throws: EngineError.self) { try store.bytes(at: offset, count: count) }
        #expect(error?.errno == EIO && error?.message.contains("shorter than it was") == true)
      }
      #expect(throws: EngineError.self) { try store.run(at: 60_000, limit: 100) }
      // Nobody said that there was anything.
      #expect(try store.bytes(at: 100_000, count: 10).isZero)
      #expect(try store.run(at: 100_000, limit: 10) == StoredRun(isData: false, length: 10))
    }
  }

  @Test func whatTheStoreItselfCutsOffIsZeros() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("file"))
      try store.write(bytes: [UInt8](repeating: 7, count: 10_000), at: 0)
      try store.resize(to: 5000)
      #expect(try store.bytes(at: 5000, count: 5000).isZero)
      #expect(try store.run(at: 6000, limit: 100) == StoredRun(isData: false, length: 100))
      try store.resize(to: 20_000)
      #expect(try store.bytes(at: 4000, count: 16_000).suffix(15_000).allSatisfy { $0 == 0 })
      try Self.truncate(folder.file("file"), to: 15_000)
      #expect(throws: EngineError.self) { try store.bytes(at: 14_999, count: 2) }
      try? store.write(bytes: [], at: UInt64.max)
      #expect(try store.bytes(at: 30_000, count: 2).isZero)
    }
  }

  /// Room that was set aside, or made zeros, is the file's own.
  @Test(arguments: [CacheMode.writeback, .direct]) func whatWasReservedAndIsGoneIsAnError(_ cache: CacheMode)
    throws
  {
    try TemporaryFolder.with { folder in
      for isReserved in [false, true] {
        let path = try folder.write([UInt8](repeating: 7, count: 4096), to: "file")
        guard let store = try? FileStore.open(path, access: .readWrite, cache: cache) else { return }
        if isReserved {
          try store.reserve(at: 4096, count: 61_440)
        } else {
          try store.writeZeros(at: 4096, count: 61_440, freeing: false)
        }
        #expect(try store.byteCount() == 65_536)
        #expect(try store.bytes(at: 61_440, count: 8192).isZero)
        try Self.truncate(path, to: 32_768)
        for offset in [UInt64(32_760), 40_000, 65_535] {
          let error = #expect(throws: EngineError.self) { try store.bytes(at: offset, count: 16) }
          #expect(error?.errno == EIO, "\(isReserved)")
        }
        #expect(try store.bytes(at: 65_536, count: 10).isZero)
      }
    }
  }

  /// A file that grows at the same time is never taken for one that was cut off.
  @Test func readsBesideWritesThatAppendAreNoErrors() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("file"))
      let wrong = Threads.run(4) { number in
        for round in 0..<2000 {
          do throws(EngineError) {
            if number == 0 {
              try store.write(bytes: [UInt8](repeating: 7, count: 500), at: UInt64(round) * 500)
            } else {
              _ = try store.bytes(at: UInt64(round) * 490, count: 2000)
            }
          } catch {
            return "\(number): \(error)"
          }
        }
        return nil
      }
      #expect(wrong.isEmpty)
    }
  }
}
