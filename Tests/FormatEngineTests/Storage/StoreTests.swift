@testable import FormatEngine
import Glibc
import TestSupport
import Testing

/// What every store promises, shown by files with and without the host's cache and by memory.
@Suite struct StoreTests {
  private func withStores(_ body: (any ByteStore) throws -> Void) throws {
    try body(MemoryStore())
    for cache: CacheMode in [.writeback, .direct, .directsync] {
      try TemporaryFolder.with { folder in
        try body(try FileStore.create(folder.file("store"), cache: cache))
      }
    }
  }

  @Test func randomChangesEqualTheModel() throws {
    try withStores { (store) throws in
      var random = SeededRandom.fromEnvironment(or: 95)
      var model = ModelDisk(byteCount: 300_000)
      try store.resize(to: 300_000)
      for _ in 0..<150 {
        let range = random.range(in: model.byteCount, most: 40_000, unit: 4096)
        switch random.below(4) {
        case 0:
          try store.writeZeros(
            at: UInt64(range.lowerBound), count: UInt64(range.count), freeing: random.oneIn(2))
          model.writeZeros(at: range.lowerBound, count: range.count)
        default:
          let bytes = random.bytes(range.count)
          try store.write(bytes: bytes, at: UInt64(range.lowerBound))
          model.write(bytes, at: range.lowerBound)
        }
      }
      let content = try store.bytes(at: 0, count: model.byteCount)
      #expect(ModelDisk.firstDifference(content, model.bytes) == nil, "\(random)")
      #expect(try store.byteCount() == 300_000)
      try store.flush()
    }
  }

  @Test func bytesPastTheEndReadAsZeros() throws {
    try withStores { (store) throws in
      try store.write(bytes: [1, 2, 3], at: 0)
      #expect(try store.bytes(at: 1, count: 5) == [2, 3, 0, 0, 0])
      #expect(try store.bytes(at: 1 << 40, count: 2) == [0, 0])
      #expect(try store.bytes(at: UInt64.max - 1, count: 2) == [0, 0])
      #expect(try store.bytes(at: 0, count: 0).isEmpty)
    }
  }

  /// Zeros that make the file longer cut off nothing that is written behind them at this moment.
  @Test(arguments: [CacheMode.writeback, .direct])
  func zerosPastTheEndLeaveWhatOthersWriteBehindThem(_ cache: CacheMode) throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("store"), cache: cache)
      for round in 0..<(cache.isDirect ? 300 : 3000) {
        try store.resize(to: 0)
        let complaints = Threads.run(2) { number in
          let written: Void? =
            number == 0
            ? try? store.writeZeros(at: 0, count: 4096, freeing: round % 2 == 0)
            : try? store.write(bytes: [7], at: 8191)
          return written == nil ? "failed" : nil
        }
        #expect(complaints.isEmpty)
        try #require(try store.byteCount() == 8192, "round \(round)")
      }
    }
  }

  @Test func writesAndZerosPastTheEndMakeTheStoreLonger() throws {
    try withStores { (store) throws in
      try store.write(bytes: [9], at: 1000)
      #expect(try store.byteCount() == 1001)
      try store.writeZeros(at: 2000, count: 48, freeing: true)
      #expect(try store.byteCount() == 2048)
      #expect(try store.bytes(at: 999, count: 3) == [0, 9, 0])
      try store.resize(to: 10)
      #expect(try store.byteCount() == 10)
      try store.resize(to: 2000)
      #expect(try store.bytes(at: 1000, count: 1) == [0])
    }
  }

  @Test func impossibleOffsetsAreErrors() throws {
    try withStores { (store) throws in
      #expect(throws: EngineError.self) { try store.write(bytes: [1], at: UInt64.max) }
      #expect(throws: EngineError.self) { try store.write(bytes: [1], at: 1 << 63) }
      #expect(throws: EngineError.self) {
        try store.writeZeros(at: UInt64.max - 5, count: 10, freeing: false)
      }
      #expect(throws: EngineError.self) { try store.writeZeros(at: 0, count: UInt64.max, freeing: true) }
      #expect(throws: EngineError.self) { try store.resize(to: UInt64.max) }
      #expect(try store.byteCount() == 0)
    }
  }

  @Test func runsTileTheStoreAndHolesReadAsZeros() throws {
    try withStores { (store) throws in
      try store.resize(to: 4 << 20)
      try store.write(bytes: [UInt8](repeating: 5, count: 65536), at: 1 << 20)
      var position: UInt64 = 0
      while position < 4 << 20 {
        let run = try store.run(at: position, limit: 4 << 20 - position)
        #expect(run.length > 0 && run.length <= 4 << 20 - position)
        if !run.isData { #expect(try store.bytes(at: position, count: Int(run.length)).isZero) }
        position += run.length
      }
      #expect(try store.run(at: 5 << 20, limit: 77) == StoredRun(isData: false, length: 77))
      #expect(try store.run(at: UInt64.max - 100, limit: 77) == StoredRun(isData: false, length: 77))
    }
  }
}

/// What only files have.
@Suite struct FileStoreTests {
  @Test func holesAndFreedRoomTakeNoRoomOnTheHost() throws {
    try TemporaryFolder.with { (folder) throws in
      let store = try FileStore.create(folder.file("sparse"))
      try store.resize(to: 64 << 20)
      #expect(try store.allocatedByteCount() < 1 << 20)
      #expect(try store.run(at: 0, limit: 64 << 20) == StoredRun(isData: false, length: 64 << 20))
      try store.write(bytes: [UInt8](repeating: 1, count: 8 << 20), at: 16 << 20)
      #expect(try store.allocatedByteCount() >= 8 << 20)
      #expect(try store.run(at: 0, limit: 64 << 20) == StoredRun(isData: false, length: 16 << 20))
      #expect(try store.run(at: 16 << 20, limit: 64 << 20) == StoredRun(isData: true, length: 8 << 20))
      try store.writeZeros(at: 16 << 20, count: 8 << 20, freeing: true)
      #expect(try store.allocatedByteCount() < 1 << 20)
      #expect(try store.bytes(at: 16 << 20, count: 4096).isZero)
    }
  }

  @Test func readOnlyFileIsNotWritten() throws {
    try TemporaryFolder.with { (folder) throws in
      let store = try FileStore.open(try folder.write([1, 2], to: "file"), access: .readOnly)
      #expect(!store.isWritable)
      #expect(throws: EngineError.self) { try store.write(bytes: [9], at: 0) }
      #expect(throws: EngineError.self) { try store.resize(to: 0) }
      #expect(try Files.read(folder.file("file")) == [1, 2])
    }
  }

  @Test func creatingEmptiesAnExistingFile() throws {
    try TemporaryFolder.with { (folder) throws in
      let path = try folder.write([1, 2, 3], to: "file")
      #expect(try FileStore.create(path).byteCount() == 0)
      #expect(throws: EngineError.self) { try FileStore.create(folder.file("no/such/folder")) }
      #expect(throws: EngineError.self) { try FileStore.create(folder.path) }
    }
  }

  @Test func identityIsOfTheFileNotOfItsName() throws {
    try TemporaryFolder.with { (folder) throws in
      let path = try folder.write([1], to: "a")
      try TestProcess.run(["/bin/ln", path, folder.file("b")]).expecting(0)
      try TestProcess.run(["/bin/ln", "-s", path, folder.file("c")]).expecting(0)
      try folder.write([1], to: "d")
      let identity = try FileStore.open(path, access: .readOnly).identity
      #expect(try FileStore.open(folder.file("b"), access: .readOnly).identity == identity)
      #expect(try FileStore.open(folder.file("c"), access: .readOnly).identity == identity)
      #expect(try FileStore.open(folder.file("d"), access: .readOnly).identity != identity)
    }
  }

  @Test func fullHostIsNoSpace() throws {
    guard Files.exists("/dev/full") else { return }
    #expect(EngineError.systemCall("x", errno: ENOSPC).code == .noSpace)
    #expect(
      EngineError.systemCall("Could not open 'x'", errno: ENOENT).message
        == "Could not open 'x': No such file or directory")
  }

  /// Zeros are written piece by piece, and whoever asks for the end gets the file as it was.
  @Test func fullPreallocationCanBeCalledOff() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([1, 2, 3, 4], to: "file")
      let store = try FileStore.open(path, access: .readWrite)
      let asked = Counter()
      let progress = Progress(report: { _, _ in }, isCancelled: { asked.next() > 3 })
      let error = #expect(throws: EngineError.self) {
        try store.setByteCount(64 << 20, from: 4, .full, progress)
      }
      #expect(error?.code == .cancelled)
      #expect(try Files.read(path) == [1, 2, 3, 4])
    }
  }

  private final class Counter: Sendable {
    private let count = Guarded(0)

    func next() -> Int {
      count.withLock { count in
        count += 1
        return count
      }
    }
  }
}
