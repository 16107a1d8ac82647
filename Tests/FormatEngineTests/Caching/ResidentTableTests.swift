@testable import FormatEngine
import Glibc
import TestSupport
import Testing

/// Tables in memory are what lies on disk, in pieces of which those without anything are not there.
@Suite struct ResidentTableTests {
  private static let place: UInt64 = 4096

  private func stored(_ store: MemoryStore, at place: UInt64, count: Int) -> [UInt64] {
    let bytes = store.snapshot
    return (0..<count).map { index in
      (0..<8).reduce(0) { value, byte in
        let position = Int(place) + 8 * index + byte
        return value << 8 | UInt64(position < bytes.count ? bytes[position] : 0)
      }
    }
  }

  private func values(_ table: ResidentTable) -> [UInt64] { (0..<table.count).map { table[UInt64($0)] } }

  /// About the ends of blocks (64 entries), of pieces (512) and of what is read at once (4096).
  @Test(arguments: [1, 63, 64, 511, 512, 513, 4095, 4096, 4097, 9000])
  func changesReachTheStoreAndComeBack(_ count: Int) throws {
    var random = SeededRandom.fromEnvironment(or: UInt64(count))
    let store = MemoryStore(random.bytes(Int(Self.place) + 8 * count))
    let table = try ResidentTable(store: store, hostOffset: Self.place, count: count)
    var model = stored(store, at: Self.place, count: count)
    #expect(values(table) == model && !table.isDirty)
    for _ in 0..<20 {
      for _ in 0..<random.below(40) {
        let index = random.below(count)
        model[index] = random.oneIn(3) ? 0 : random.next()
        table.set(UInt64(index), to: model[index])
      }
      #expect(values(table) == model, "\(random)")
      try table.writeBack()
      #expect(stored(store, at: Self.place, count: count) == model && !table.isDirty, "\(random)")
    }
    #expect(try values(ResidentTable(store: store, hostOffset: Self.place, count: count)) == model)
  }

  @Test func entriesPastTheEndAreZeros() throws {
    // All bits of the file are set, so that what is read past the table would be seen.
    let store = MemoryStore([UInt8](repeating: 0xff, count: 65536))
    let table = try ResidentTable(store: store, hostOffset: Self.place, count: 513)
    #expect(table[512] == .max)
    for index: UInt64 in [513, 1023, 1024, 1 << 40, .max] { #expect(table[index] == 0) }
  }

  @Test(arguments: [(1, 2), (100, 512), (512, 513), (600, 5000), (700, 700)])
  func tablesGrowAtAnotherPlace(_ count: Int, _ newCount: Int) throws {
    let store = MemoryStore([UInt8](repeating: 0xff, count: 1 << 20))
    let old = (0..<count).map { UInt64($0) * 3 }
    let table = ResidentTable(store: store, hostOffset: Self.place, values: old)
    let place: UInt64 = 512 << 10
    table.relocate(to: place, count: newCount)
    let new = old + [UInt64](repeating: 0, count: newCount - count)
    #expect(values(table) == new && table.isDirty)
    try table.writeBack()
    #expect(stored(store, at: place, count: newCount) == new)
    // Nothing at the old place.
    #expect(stored(store, at: Self.place, count: count) == [UInt64](repeating: .max, count: count))
  }

  @Test func zerosTakeNoMemory() throws {
    let count = 1 << 22
    let table = try ResidentTable(store: MemoryStore([]), hostOffset: Self.place, count: count)
    let empty = table.residentByteCount
    #expect(empty <= 64 << 10)
    table.set(UInt64(count - 1), to: 0)
    #expect(table.residentByteCount == empty)
    table.set(UInt64(count - 1), to: 7)
    #expect(table.residentByteCount == empty + 4096)
  }

  @Test func whatCouldNotBeWrittenIsWrittenTheNextTime() throws {
    let memory = MemoryStore([UInt8](repeating: 0, count: 65536))
    let store = FaultStore(memory)
    let table = try ResidentTable(store: store, hostOffset: Self.place, count: 2000)
    // Three places that are apart: three writes.
    let indices: [UInt64] = [0, 700, 1999]
    for index in indices { table.set(index, to: index + 1) }
    store.arm(failing: 1, of: [.write], errno: ENOSPC)
    #expect(throws: EngineError.self) { try table.writeBack() }
    #expect(table.isDirty)
    try table.writeBack()
    #expect(!table.isDirty)
    let now = stored(memory, at: Self.place, count: 2000)
    for index in indices { #expect(now[Int(index)] == index + 1) }
  }
}
