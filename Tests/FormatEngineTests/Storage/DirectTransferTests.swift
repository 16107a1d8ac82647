import FormatEngine
import Synchronization
import TestSupport
import Testing

/// Files that the host's page cache is not to see.
@Suite struct DirectTransferTests {
  @Test func cacheHoldsNothingAfterAFlushWhateverTheLengthIs() throws {
    for cache: CacheMode in [.direct, .directsync] {
      try TemporaryFolder.with { folder in
        let path = folder.file("store")
        let store = try FileStore.create(path, cache: cache)
        try store.write(bytes: [UInt8](repeating: 1, count: 1 << 20), at: 0)
        try store.write(bytes: [2, 3], at: 300_000)
        try store.write(bytes: [4], at: 1 << 20 + 700)
        try store.writeZeros(at: 5000, count: 20_000, freeing: true)
        try store.resize(to: 1 << 20 + 600)
        #expect(try store.bytes(at: 299_999, count: 4) == [1, 2, 3, 1])
        try store.flush()
        #expect(PageCache.pageCount(of: path) == 0)
      }
    }
  }

  @Test func otherModesUseTheCache() throws {
    for cache: CacheMode in [.writeback, .writethrough, .unflushed] {
      try TemporaryFolder.with { folder in
        let path = folder.file("store")
        let store = try FileStore.create(path, cache: cache)
        try store.write(bytes: [UInt8](repeating: 1, count: 1 << 20), at: 0)
        try store.flush()
        #expect(PageCache.pageCount(of: path) == 256)
      }
    }
  }

  @Test func filesAreOpenedAsTheModeSays() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([1], to: "file")
      for (cache, direct, synchronous): (CacheMode, Bool, Bool) in [
        (.writeback, false, false), (.writethrough, false, true), (.direct, true, false),
        (.directsync, true, true), (.unflushed, false, false),
      ] {
        let store = try FileStore.open(path, access: .readWrite, cache: cache)
        defer { withExtendedLifetime(store) {} }
        let flags = try #require(try folder.openFlags(of: "file"))
        // O_DIRECT and O_DSYNC, as x86-64 has them.
        #expect((flags & 0o40000 != 0) == direct, "\(cache)")
        #expect((flags & 0o10000 != 0) == synchronous, "\(cache)")
      }
    }
  }

  /// A file's length is what was written, at any moment: nobody ever sees a whole unit at its end.
  @Test func appendingNeverPads() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("store"), cache: .direct)
      let isOver = Atomic<Bool>(false)
      let wrong = Threads.run(2) { number in
        if number == 0 {
          defer { isOver.store(true, ordering: .relaxed) }
          for step in 0..<400 where (try? store.write(bytes: [7, 7, 7], at: UInt64(step) * 3)) == nil {
            return "write \(step) failed"
          }
        } else {
          while !isOver.load(ordering: .relaxed) {
            guard let size = try? store.byteCount(), size <= 1200, size % 3 == 0 else { return "padded" }
          }
        }
        return nil
      }
      #expect(wrong.isEmpty)
      #expect(try store.bytes(at: 0, count: 1203) == [UInt8](repeating: 7, count: 1200) + [0, 0, 0])
      #expect(try store.byteCount() == 1200)
    }
  }

  /// Threads that change bytes of their own in units that all of them share.
  @Test func smallWritesInOneUnitDoNotLoseEachOther() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("store"), cache: .direct)
      try store.resize(to: 40_000)
      let threadCount = 4
      let stripe = 100
      let wrong = Threads.run(threadCount) { number in
        var random = SeededRandom(seed: UInt64(number))
        let mine = [UInt8](repeating: UInt8(number + 1), count: stripe)
        for _ in 0..<300 {
          let index = random.below(40_000 / stripe / threadCount) * threadCount + number
          let offset = UInt64(index * stripe)
          do {
            if random.oneIn(4) {
              try store.writeZeros(at: offset, count: UInt64(stripe), freeing: random.oneIn(2))
              if try store.bytes(at: offset, count: stripe).contains(where: { $0 != 0 }) { return "zeros" }
            }
            try store.write(bytes: mine, at: offset)
            if try store.bytes(at: offset, count: stripe) != mine { return "stripe \(index)" }
          } catch { return "\(error)" }
        }
        return nil
      }
      #expect(wrong.isEmpty)
      let content = try store.bytes(at: 0, count: 40_000)
      for (index, byte) in content.enumerated() {
        let owner = UInt8(index / stripe % threadCount + 1)
        if byte != 0 && byte != owner { return #expect(byte == owner, "byte \(index)") }
      }
    }
  }
}
