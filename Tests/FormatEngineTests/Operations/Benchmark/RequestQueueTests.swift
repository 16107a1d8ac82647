import TestSupport
import Testing

@testable import FormatEngine

/// Both kinds of queue: all requests are carried out, once, and no more of them at a time than they should be.
@Suite struct RequestQueueTests {
  private func options(
    _ kind: BenchmarkOptions.Kind, _ count: Int, depth: Int, byteCount: Int = 4096, step: UInt64? = nil,
    offset: UInt64 = 0
  ) -> BenchmarkOptions {
    var options = BenchmarkOptions()
    options.kind = kind
    options.requestCount = count
    options.depth = depth
    options.byteCount = byteCount
    options.step = step ?? UInt64(byteCount)
    options.offset = offset
    return options
  }

  /// A raw disk in a file.
  private func withDisk(
    _ byteCount: Int, _ access: FileAccess, _ body: (ImageChain, String) throws -> Void
  ) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 11)
      try folder.write(random.bytes(byteCount), to: "disk")
      let path = folder.file("disk")
      try body(try ImageOpener.open(path, OpenOptions(format: "raw", access: access)), path)
    }
  }

  // MARK: Threads

  @Test func threadsReadEveryPlaceOnceAndNoMoreAtATimeThanTheDepth() throws {
    let store = WatchedStore(byteCount: 1 << 20)
    let chain = try ImageChain.over(store, format: RawFormat.self)
    try ThreadQueue(chain, options(.read, 256, depth: 5)).run()
    #expect(store.offsets.sorted() == (0..<256).map { UInt64($0) * 4096 })
    #expect(store.mostAtWork <= 5)
    #expect(store.mostAtWork > 1)
  }

  @Test(arguments: [true, false])
  func threadsFlushAtTheInterval(drains: Bool) throws {
    let store = CountingStore(MemoryStore([UInt8](repeating: 0, count: 1 << 20)))
    let chain = try ImageChain.over(store, format: RawFormat.self, access: .readWrite)
    var options = options(.write(pattern: 7), 100, depth: 4)
    options.flushing = .init(interval: 10, drains: drains)
    try ThreadQueue(chain, options).run()
    #expect(store.callCount(.write) == 100)
    #expect(store.callCount(.flush) == 10)
  }

  @Test func anErrorEndsAllThreadsAndIsThrown() throws {
    for forEver in [true, false] {
      let store = FaultStore(MemoryStore([UInt8](repeating: 0, count: 1 << 20)))
      let chain = try ImageChain.over(store, format: RawFormat.self)
      store.arm(failing: 10, forEver: forEver, of: [.read])
      let queue = try ThreadQueue(chain, options(.read, 1_000_000, depth: 8))
      #expect(throws: EngineError(.system(errno: 5), "Injected failure of read")) { try queue.run() }
      #expect(store.callCount < 1000)
    }
  }

  @Test func aFailedFlushEndsThreadsThatWaitForIt() throws {
    let store = FaultStore(MemoryStore([UInt8](repeating: 0, count: 1 << 20)))
    let chain = try ImageChain.over(store, format: RawFormat.self, access: .readWrite)
    var options = options(.write(pattern: 7), 100_000, depth: 8)
    options.flushing = .init(interval: 10, drains: true)
    store.arm(failing: 3, of: [.flush])
    #expect(throws: EngineError.self) { try ThreadQueue(chain, options).run() }
  }

  // MARK: Queues of the kernel

  @Test func aQueueOfTheKernelGetsEveryRequestOnceAndNoMoreThanTheDepth() throws {
    try withDisk(1 << 20, .readOnly) { (chain, _) throws in
      let kernel = ScriptedQueue()
      try KernelRequestQueue(chain, options(.read, 1000, depth: 16), kernel, 16).run()
      #expect(kernel.offsets == (0..<1000).map { UInt64($0 % 256) * 4096 })
      #expect(kernel.mostWaiting == 16)
      #expect(kernel.waitingCount == 0)
    }
  }

  @Test func anErrorOfTheKernelIsThrownAfterAllHasEnded() throws {
    try withDisk(1 << 20, .readWrite) { (chain, path) throws in
      for kind in [BenchmarkOptions.Kind.read, .write(pattern: 1)] {
        let disk = kind == .read ? try ImageOpener.open(path, OpenOptions(format: "raw")) : chain
        let kernel = ScriptedQueue()
        kernel.results = [20: -28, 22: -5]
        #expect(throws: (any Error).self) {
          try KernelRequestQueue(disk, options(kind, 1000, depth: 16), kernel, 16).run()
        }
        #expect(kernel.waitingCount == 0)
        #expect(kernel.offsets.count < 1000)
        // Nothing is held any more.
        #expect(disk.ranges.take(0..<UInt64.max))
        disk.ranges.give(0..<UInt64.max)
      }
    }
  }

  /// Whatever the kernel did not do by itself the chain does.
  @Test func transfersThatFallShortAreDoneAgain() throws {
    try withDisk(1 << 20, .readWrite) { (chain, path) throws in
      let kernel = ScriptedQueue()
      // Some are cut short, one is not taken for the moment.
      kernel.results = [3: 100, 7: 0, 9: -11, 255: 4095]
      try KernelRequestQueue(chain, options(.write(pattern: 0x5a), 256, depth: 8), kernel, 8).run()
      #expect(try Files.read(path) == [UInt8](repeating: 0x5a, count: 1 << 20))
    }
  }

  @Test(arguments: [TransferMethod.ring, .native])
  func whatLiesPastTheEndOfTheFileReadsAsZeros(method: TransferMethod) throws {
    try TemporaryFolder.with { folder in
      let content = [UInt8](repeating: 9, count: 5000)
      let path = try folder.write(content, to: "disk")
      let chain = try ImageOpener.open(path, OpenOptions(format: "raw"))
      let kernel: any KernelQueue =
        method == .ring ? try RingQueue(capacity: 1) : try NativeQueue(capacity: 1)
      let queue = try KernelRequestQueue(
        chain, options(.read, 1, depth: 1, byteCount: 1024, offset: 4096), kernel, 1)
      let memory = unsafe queue.work.buffers.place(0)
      unsafe memory.initializeMemory(as: UInt8.self, repeating: 0xff)
      try queue.run()
      #expect(unsafe Array(memory) == Array(content[4096...]) + [UInt8](repeating: 0, count: 1024 - 904))
    }
  }

  /// A request that leaves the disk is an I/O error, with every method.
  @Test(arguments: [TransferMethod.threads, .ring, .native])
  func requestsPastTheEndFail(method: TransferMethod) throws {
    try withDisk(1 << 20, .readOnly) { (chain, _) throws in
      for (offset, byteCount) in [(UInt64(1 << 20), 4096), (1 << 40, 512), ((1 << 20) - 512, 1024)] {
        var options = options(.read, 10, depth: 4, byteCount: byteCount, offset: offset)
        options.transfer = method
        #expect(throws: EngineError.self) { try Benchmark.run(on: chain, options) }
      }
      var nothing = options(.read, 10, depth: 4, byteCount: 0)
      nothing.transfer = method
      let seconds = try Benchmark.run(on: chain, nothing)
      #expect(seconds >= 0)
    }
  }

  /// Native AIO is for files that are opened past the page cache; io_uring is for all.
  @Test func theMethodMustFitTheFile() throws {
    try withDisk(1 << 20, .readOnly) { (chain, path) throws in
      var options = options(.read, 100, depth: 4)
      options.transfer = .ring
      try Benchmark.check(chain, options)
      options.transfer = .native
      #expect(throws: EngineError.self) { try Benchmark.check(chain, options) }
      var opening = OpenOptions(format: "raw")
      opening.cache = .direct
      // A file system without O_DIRECT has nothing more to show.
      guard let direct = try? ImageOpener.open(path, opening) else { return }
      try Benchmark.check(direct, options)
      for byteCount in [4096, 1000] {
        options.byteCount = byteCount
        #expect(try Benchmark.run(on: direct, options) > 0)
      }
    }
  }

  @Test func memoryThatThereIsNotIsAnError() throws {
    try withDisk(1 << 20, .readOnly) { (chain, _) throws in
      #expect(throws: EngineError.self) {
        try Benchmark.run(on: chain, options(.read, 100_000, depth: 64, byteCount: Int(Int32.max)))
      }
    }
  }
}

/// A store of zeros that notes where it is read, and how many read it at a time.
private final class WatchedStore: ByteStore {
  private struct State {
    var offsets: [UInt64] = []
    var atWork = 0
    var mostAtWork = 0
  }

  private let size: UInt64
  private let state = Guarded(State())

  init(byteCount: UInt64) { size = byteCount }

  var offsets: [UInt64] { state.withLock { $0.offsets } }
  var mostAtWork: Int { state.withLock { $0.mostAtWork } }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    state.withLock { state in
      state.offsets.append(offset)
      state.atWork += 1
      state.mostAtWork = max(state.mostAtWork, state.atWork)
    }
    Threads.pause(microseconds: 200)
    state.withLock { $0.atWork -= 1 }
  }

  func byteCount() throws(EngineError) -> UInt64 { size }
  func allocatedByteCount() throws(EngineError) -> UInt64 { 0 }
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {}
  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {}
  func forget(at offset: UInt64, count: UInt64) {}
  func resize(to byteCount: UInt64) throws(EngineError) {}
  func flush() throws(EngineError) {}
  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    StoredRun(isData: true, length: limit)
  }
  var spliceDescriptor: CInt? { nil }
  var isWritable: Bool { false }
}
