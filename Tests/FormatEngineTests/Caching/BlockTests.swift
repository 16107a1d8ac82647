import TestSupport
import Testing

@testable import FormatEngine

@Suite struct EntryTableTests {
  /// A table that begins and ends in the middle of other things, which stay as they are.
  @Test(arguments: [EntryTable<UInt32>.ByteOrder.littleEndian, .bigEndian])
  func onlyItsOwnBytesChange(_ byteOrder: EntryTable<UInt32>.ByteOrder) throws {
    var random = SeededRandom(seed: 5)
    var model = random.bytes(20_000)
    let store = MemoryStore(model)
    let order = WriteOrder(stores: [store], firstRankPoints: true)
    let table = EntryTable<UInt32>(in: store, at: 1036, count: 3000, byteOrder, writeOrder: order)
    for _ in 0..<200 {
      let index = random.below(3000)
      let value = UInt32(truncatingIfNeeded: random.below(1 << 32))
      try table.setEntry(at: UInt64(index), to: value)
      #expect(try table.entry(at: UInt64(index)) == value)
      var field: [UInt8] = []
      if byteOrder == .bigEndian { field.append(bigEndian: value) } else { field.append(littleEndian: value) }
      model.replaceSubrange(1036 + 4 * index..<1040 + 4 * index, with: field)
    }
    // Others write beside the table meanwhile.
    try store.write(bytes: [1, 2, 3], at: 13_036)
    model.replaceSubrange(13_036..<13_039, with: [1, 2, 3])
    try order.flush()
    #expect(try store.bytes(at: 0, count: model.count) == model)
  }

  @Test func entriesPastTheEndOfTheFileAreZeroAndThoseOfNoTableAreErrors() throws {
    let store = MemoryStore([UInt8](repeating: 255, count: 100))
    let table = EntryTable<UInt64>(in: store, at: 96, count: 10, .littleEndian, writeOrder: nil)
    #expect(try table.entry(at: 0) == 0xffff_ffff)
    #expect(try table.entry(at: 9) == 0)
    #expect(throws: EngineError.self) { try table.entry(at: 10) }
  }
}

@Suite struct BlockAllocatorTests {
  @Test func blocksThatAreReleasedAreReusedOnlyAfterTheyAreFlushed() throws {
    var allocator = BlockAllocator(unit: 100, end: 1000)
    #expect(try allocator.allocate(atMost: 3) == (1000, 3, true))
    allocator.release(1100)
    #expect(try allocator.allocate(atMost: 1) == (1300, 1, true))
    allocator.flushed()
    #expect(try allocator.allocate(atMost: 5) == (1100, 1, false))
    #expect(try allocator.allocate(atMost: 5) == (1400, 5, true))
  }

  @Test func roomThatWasNotUsedIsGivenBack() throws {
    var allocator = BlockAllocator(unit: 10, end: 0)
    #expect(try allocator.allocate(atMost: 4) == (0, 4, true))
    allocator.takeBack(20, count: 2)
    #expect(allocator.end == 20)
    allocator.takeBack(0, count: 1)
    #expect(try allocator.allocate(atMost: 4) == (0, 1, false))
    #expect(allocator.reserveEnd(7) == 20)
    #expect(allocator.end == 27)
  }

  @Test func aFullFileIsAnError() throws {
    var allocator = BlockAllocator(unit: 10, end: 0)
    #expect(try allocator.allocate(atMost: 9, limit: 25) == (0, 2, true))
    #expect(throws: EngineError.self) { try allocator.allocate(atMost: 1, limit: 25) }
  }
}
