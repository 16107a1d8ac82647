@testable import FormatEngine
import Glibc
import TestSupport
import Testing

@Suite struct TableCacheTests {
  private func firstByte(_ cache: TableCache, _ offset: UInt64) throws -> UInt8 {
    unsafe try cache.slice(at: offset)[0]
  }

  private func change(_ cache: TableCache, _ offset: UInt64, to byte: UInt8) throws {
    unsafe try cache.slice(at: offset)[0] = byte
    cache.markDirty(at: offset)
  }

  @Test func randomChangesThroughASmallCacheReachTheStore() throws {
    var random = SeededRandom.fromEnvironment(or: 101)
    let store = MemoryStore([UInt8](repeating: 0, count: 512 * 400))
    let order = WriteOrder(stores: [store])
    let cache = TableCache(store: store, order: order, sliceByteCount: 512, capacity: 512 * 16)
    order.append(cache)
    var model = [UInt8](repeating: 0, count: 400)
    for _ in 0..<4000 {
      let slice = random.below(400)
      #expect(try firstByte(cache, UInt64(slice * 512)) == model[slice], "\(random)")
      if random.oneIn(3) {
        model[slice] = UInt8(random.below(256))
        try change(cache, UInt64(slice * 512), to: model[slice])
      }
      if random.oneIn(500) { try order.flush() }
    }
    try order.flush()
    #expect(!cache.isDirty)
    for slice in 0..<400 { #expect(store.snapshot[slice * 512] == model[slice]) }
  }

  /// Also what was taken only to see that it is there.
  @Test(arguments: [(512, 512), (4096, 100_000), (65536, 1 << 20)])
  func droppedCachesGiveTheirAddressesBack(_ sliceByteCount: Int, _ capacity: UInt64) throws {
    func pages() throws -> Int {
      let text = String(decoding: try Files.read("/proc/self/statm"), as: UTF8.self)
      return try #require(text.split(separator: " ").first.flatMap { Int($0) })
    }
    let store = MemoryStore([])
    func make() -> TableCache {
      TableCache(store: store, order: nil, sliceByteCount: sliceByteCount, capacity: capacity)
    }
    _ = make()
    let before = try pages()
    for _ in 0..<20 { _ = make() }
    #expect(try (pages() - before) * 4096 < 64 << 20)
    let kept = (0..<20).map { _ in make() }
    #expect(try (pages() - before) * 4096 < 128 << 20)
    #expect(kept.count == 20)
  }

  @Test func warmSliceIsNotReadAgain() throws {
    let store = CountingStore(MemoryStore([UInt8](repeating: 7, count: 8192)))
    let cache = TableCache(
      store: store, order: WriteOrder(stores: [store]), sliceByteCount: 512, capacity: 8192)
    for _ in 0..<5 { #expect(try firstByte(cache, 1024) == 7) }
    #expect(store.callCount(.read) == 1)
  }

  @Test func failedReadLeavesNoSlice() throws {
    let store = FaultStore(MemoryStore([UInt8](repeating: 7, count: 8192)))
    let cache = TableCache(
      store: store, order: WriteOrder(stores: [store]), sliceByteCount: 512, capacity: 8192)
    store.arm(failing: 0)
    #expect(throws: EngineError.self) { try firstByte(cache, 512) }
    #expect(try firstByte(cache, 512) == 7)
  }

  @Test func failedWriteStaysDirty() throws {
    let memory = MemoryStore([UInt8](repeating: 0, count: 8192))
    let store = FaultStore(memory)
    let order = WriteOrder(stores: [store])
    let cache = TableCache(store: store, order: order, sliceByteCount: 512, capacity: 8192)
    order.append(cache)
    try change(cache, 512, to: 9)
    store.arm(failing: 0, of: [.write])
    #expect(throws: EngineError.self) { try order.flush() }
    #expect(cache.isDirty && memory.snapshot[512] == 0)
    try order.flush()
    #expect(!cache.isDirty && memory.snapshot[512] == 9)
  }

  @Test func droppedSliceIsNeverWritten() throws {
    let store = MemoryStore([UInt8](repeating: 1, count: 8192))
    let order = WriteOrder(stores: [store])
    let cache = TableCache(store: store, order: order, sliceByteCount: 512, capacity: 8192)
    order.append(cache)
    try change(cache, 512, to: 9)
    cache.drop(at: 0, count: 2048)
    try order.flush()
    #expect(store.snapshot == [UInt8](repeating: 1, count: 8192))
  }

  @Test func freshSliceIsZerosWithoutReading() throws {
    let store = CountingStore(MemoryStore([UInt8](repeating: 1, count: 8192)))
    let cache = TableCache(
      store: store, order: WriteOrder(stores: [store]), sliceByteCount: 512, capacity: 8192)
    unsafe #expect(try cache.freshSlice(at: 512)[0] == 0)
    #expect(store.callCount(.read) == 0 && cache.isDirty)
  }
}

@Suite struct WriteOrderTests {
  /// A table that writes its number where all can see in which order that was.
  private final class Table: OrderedTable {
    var isDirty = true
    let number: UInt8
    let store: CrashStore
    init(_ number: UInt8, _ store: CrashStore) { (self.number, self.store) = (number, store) }
    func writeBack() throws(EngineError) {
      try store.write(bytes: [number], at: UInt64(number))
      isDirty = false
    }
  }

  @Test func ranksAreWrittenInOrderWithAFlushBetween() throws {
    let store = CrashStore()
    let order = WriteOrder(stores: [store])
    for number in 0..<3 as Range<UInt8> { order.append(Table(number, store)) }
    #expect(order.isDirty)
    try order.flush()
    #expect(!order.isDirty)
    let story = store.events.map { event in
      switch event {
      case .write(let offset, _): "write \(offset)"
      case .flush: "flush"
      case .zeros, .resize, .create, .remove: "other"
      }
    }
    #expect(story == ["write 0", "flush", "write 1", "flush", "write 2", "flush"])
  }
}

@Suite struct RangeLockTests {
  @Test func exclusiveHoldersOfAByteNeverOverlap() {
    let lock = RangeLock()
    let holders = Guarded<[Int]>(Array(repeating: 0, count: 64))
    let wrong = Threads.run(6) { number in
      var random = SeededRandom(seed: UInt64(number))
      for _ in 0..<400 {
        let start = random.below(60)
        let range = start..<start + 1 + random.below(4)
        let isExclusive = random.oneIn(2)
        var complaint: String?
        try? lock.withRange(UInt64(range.lowerBound)..<UInt64(range.upperBound), exclusive: isExclusive) {
          () throws(EngineError) in
          holders.withLock { list in
            for index in range {
              // A writer counts 1000, a reader 1.
              if list[index] >= 1000 || (isExclusive && list[index] != 0) {
                complaint = "byte \(index): \(list[index])"
              }
              list[index] += isExclusive ? 1000 : 1
            }
          }
          sched_yield()
          holders.withLock { list in for index in range { list[index] -= isExclusive ? 1000 : 1 } }
        }
        if let complaint { return complaint }
      }
      return nil
    }
    #expect(wrong.isEmpty)
    #expect(holders.withLock { $0.allSatisfy { $0 == 0 } })
  }

  @Test func failureInsideGivesTheRangeBack() throws {
    let lock = RangeLock()
    #expect(throws: EngineError.self) {
      try lock.withRange(0..<10, exclusive: true) { () throws(EngineError) in throw .invalid("on purpose") }
    }
    let inside = try Deadline.within(seconds: 5, "range lock") {
      try lock.withRange(5..<6, exclusive: true) { () throws(EngineError) in 3 }
    }
    #expect(inside == 3)
  }

  /// Somebody always reads, and takes some of what is read once more; who wants everything gets it all the same.
  @Test func nobodyIsKeptOut() {
    let lock = RangeLock()
    let isOver = StopFlag()
    Deadline.within(seconds: 20, "a range among readers") {
      let entered = Guarded(0)
      let wrong = Threads.run(5) { number in
        if number == 0 {
          defer { isOver.set() }
          for _ in 0..<20 {
            usleep(5000)
            try? lock.withRange(0..<UInt64.max, exclusive: true) { () throws(EngineError) in
              entered.withLock { $0 += 1 }
            }
          }
          return nil
        }
        usleep(UInt32(number) * 500)
        while !isOver.isSet {
          try? lock.withRange(0..<100, exclusive: false) { () throws(EngineError) in
            usleep(1000)
            try lock.withRange(50..<60, exclusive: false) { () throws(EngineError) in _ = usleep(1000) }
          }
        }
        return nil
      }
      #expect(wrong.isEmpty && entered.withLock { $0 } == 20)
    }
  }

  @Test func readersShareARange() throws {
    let lock = RangeLock()
    try Deadline.within(seconds: 5, "shared range") {
      let inner = try lock.withRange(0..<10, exclusive: false) { () throws(EngineError) in
        try lock.withRange(5..<6, exclusive: false) { () throws(EngineError) in 4 }
      }
      #expect(inner == 4)
    }
  }
}

@Suite struct ClusterCacheTests {
  @Test func whatChangedMeanwhileIsNotKept() {
    let cache = ClusterCache()
    let cluster = AlignedBuffer(byteCount: 512)
    let before = cache.generation
    cache.invalidate(0..<512)
    cache.insert(cluster, depth: 0, guestOffset: 0, byteCount: 512, generation: before)
    #expect(cache.find(depth: 0, guestOffset: 0) == nil)
    cache.insert(cluster, depth: 0, guestOffset: 0, byteCount: 512, generation: cache.generation)
    #expect(cache.find(depth: 0, guestOffset: 0) === cluster)
  }

  @Test func onlyTheTopLayersOverlapIsForgotten() {
    let cache = ClusterCache()
    for (depth, offset) in [(0, 0), (0, 512), (1, 0)] as [(Int, UInt64)] {
      cache.insert(
        AlignedBuffer(byteCount: 512), depth: depth, guestOffset: offset, byteCount: 512, generation: 0)
    }
    cache.invalidate(100..<101)
    #expect(cache.find(depth: 0, guestOffset: 0) == nil)
    #expect(cache.find(depth: 0, guestOffset: 512) != nil)
    #expect(cache.find(depth: 1, guestOffset: 0) != nil)
  }

  @Test func oldClustersMakeRoom() {
    let cache = ClusterCache()
    for index in 0..<200 as Range<UInt64> {
      cache.insert(
        AlignedBuffer(byteCount: 65536), depth: 0, guestOffset: index << 16, byteCount: 65536, generation: 0)
    }
    #expect(cache.find(depth: 0, guestOffset: 0) == nil)
    #expect(cache.find(depth: 0, guestOffset: 199 << 16) != nil)
  }

  /// A disk of one packed block of 32 MiB, read by eight threads and by two chains: it is unpacked once.
  @Test func largeClustersAreUnpackedOnceForAllWhoReadThem() throws {
    let layer = OnePackedBlock(byteCount: 32 << 20)
    let chain = layer.chain()
    let chains = [chain, chain.lower(from: 0), chain.delta(at: 0)]
    let complaints = Threads.run(8) { number in
      for step in 0..<32 {
        let bytes = try? chains[number % 3].readBytes(at: UInt64(step << 20), count: 4096)
        guard bytes == [UInt8](repeating: 7, count: 4096) else { return "thread \(number), step \(step)" }
      }
      return nil
    }
    #expect(complaints.isEmpty && layer.unpackCount == 1, "\(complaints), \(layer.unpackCount) times")
  }
}

/// A disk that is packed as a whole.
private final class OnePackedBlock: ImageLayer {
  let virtualSize: UInt64
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = false
  private let count = Guarded(0)

  var unpackCount: Int { count.withLock { $0 } }

  init(byteCount: UInt64) { virtualSize = byteCount }

  func chain() -> ImageChain {
    ImageChain(members: [
      ChainMember(layer: self, file: MemoryStore([]), path: "packed", formatName: "packed")
    ])
  }

  func store(_ index: UInt16) -> any ByteStore { MemoryStore([]) }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.compressed, length: limit, hostOffset: 0)
  }

  func packedUnit(at offset: UInt64) throws(EngineError) -> Range<UInt64> { 0..<virtualSize }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    count.withLock { $0 += 1 }
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 7)
  }
}

@Suite struct LowestFirstTests {
  @Test func numbersComeOutInOrder() {
    var random = SeededRandom.fromEnvironment(or: 17)
    var heap = LowestFirst()
    var model: [UInt64] = []
    for _ in 0..<2000 {
      if random.oneIn(3), !model.isEmpty {
        #expect(heap.lowest == model.min())
        let lowest = heap.popLowest()
        #expect(lowest == model.min())
        if let index = model.firstIndex(where: { $0 == lowest }) { model.remove(at: index) }
      } else {
        let number = UInt64(random.below(500))
        heap.insert(number)
        model.append(number)
      }
    }
    while let lowest = heap.popLowest() {
      #expect(lowest == model.min())
      if let index = model.firstIndex(where: { $0 == lowest }) { model.remove(at: index) }
    }
    #expect(model.isEmpty)
  }
}
