import FormatEngine
import TestSupport
import Testing

@Suite struct VDIWriterTests {
  /// Opens, changes, closes; gives the bytes.
  private static func change(_ image: VDIBytes, _ body: (ImageChain, MemoryStore) throws -> Void) throws
    -> VDIBytes
  {
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    try body(chain, store)
    try chain.close()
    let after = VDIBytes(store.snapshot)
    // What QEMU and VirtualBox rely on: as many rooms as blocks are counted, without holes, nothing behind them.
    let rooms = after.entries.filter { $0 < VDIBytes.zeros }.sorted()
    #expect(rooms == Array(0..<UInt32(rooms.count)))
    #expect(after.field(388) == UInt32(rooms.count))
    #expect(
      after.bytes.count == Int(after.field(344)) + rooms.count * Int(after.field(376) + after.field(380)))
    return after
  }

  @Test func closingFillsHolesAndCutsTheFileOff() throws {
    let image = VDIBytes(entries: [0, 1, 2, 3, 4, VDIBytes.free])
    let after = try Self.change(image) { chain, _ in
      try chain.discard(at: 0, count: 4096)
      try chain.writeZeros(at: 2 * 4096, count: 4096)
    }
    #expect(after.entries[0] == VDIBytes.free && after.entries[2] == VDIBytes.zeros)
    let content = [0, 2, 0, 4, 5, 0].flatMap { [UInt8](repeating: $0, count: 4096) }
    #expect(try after.open().readAll() == content)
  }

  /// Between a look at the file's size and another one, others may write behind it.
  @Test func blocksAreLinkedWithoutResizingTheFile() throws {
    let store = FaultStore(MemoryStore(VDIBytes(entries: [0, VDIBytes.free, VDIBytes.free]).bytes))
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    store.arm(failing: 0, forEver: true, of: [.resize])
    try chain.writeBytes([5], at: 4096)
    try chain.writeBytes([6], at: 3 * 4096 - 1)
    try chain.flush()
    #expect(try store.byteCount() == 1024 + 3 * 4096)
    let content = [5] + [UInt8](repeating: 0, count: 2 * 4096 - 2) + [6]
    #expect(try chain.readBytes(at: 4096, count: 2 * 4096) == content)
  }

  @Test func extraBytesMoveWithTheirBlock() throws {
    var image = VDIBytes(extra: 512, entries: [0, 1])
    image.bytes[1024 + 4608 + 5] = 0x77
    let after = try Self.change(image) { chain, _ in try chain.discard(at: 0, count: 4096) }
    #expect(after.entries == [VDIBytes.free, 0])
    #expect(after.bytes[1024 + 5] == 0x77 && after.bytes[1024 + 512] == 2)
  }

  /// Room that was let go of is used again, but not before the entries that led to it are off the disk.
  @Test func freedRoomIsUsedAgainAfterAFlush() throws {
    let image = VDIBytes(entries: [0, 1, VDIBytes.free, VDIBytes.free])
    _ = try Self.change(image) { chain, store in
      try chain.discard(at: 0, count: 4096)
      try chain.writeBytes([UInt8](repeating: 0x30, count: 4096), at: 2 * 4096)
      #expect(Array(store.snapshot[1024..<1024 + 4096]) == [UInt8](repeating: 1, count: 4096))
      try chain.flush()
      let size = store.snapshot.count
      try chain.writeBytes([UInt8](repeating: 0x31, count: 4096), at: 3 * 4096)
      try chain.flush()
      #expect(store.snapshot.count == size)
      #expect(try chain.readAll() == [0, 2, 0x30, 0x31].flatMap { [UInt8](repeating: $0, count: 4096) })
    }
  }

  /// The disk is as full as it can be all the time.
  @Test func fullDiskIsRewrittenForEver() throws {
    let image = VDIBytes(entries: (0..<8).map { $0 })
    _ = try Self.change(image) { chain, _ in
      for round in 0..<40 {
        let offset = UInt64(round * 5 % 8) * 4096
        try chain.writeZeros(at: offset, count: 4096)
        try chain.writeBytes([UInt8](repeating: UInt8(round), count: 4096), at: offset)
        #expect(try chain.readBytes(at: offset, count: 1) == [UInt8(round)])
      }
    }
  }

  @Test func zerosInPlaceKeepTheRoom() throws {
    let image = VDIBytes(entries: [0, 1])
    let after = try Self.change(image) { chain, _ in
      try chain.writeZeros(at: 0, count: 4096, keepingRoom: true)
      try chain.writeZeros(at: 4096 + 100, count: 200)
    }
    #expect(after.entries == [0, 1])
    let content = try after.open().readAll()
    #expect(
      content[..<4196].dropFirst(4096).holdsOnly(2) && content[..<4096].holdsOnly(0))
    #expect(content[4196..<4396].holdsOnly(0) && content[4396...].holdsOnly(2))
  }

  @Test func staticImageKeepsAllItsRoom() throws {
    let image = VDIBytes(type: 2, entries: [0, 1, 2])
    let after = try Self.change(image) { chain, _ in
      try chain.discard(at: 0, count: 8192)
      try chain.writeZeros(at: 8192 + 1, count: 4095)
    }
    #expect(after.entries == [0, 1, 2])
    let content = try after.open().readAll()
    #expect(
      content[8192] == 3 && content[..<8192].holdsOnly(0) && content[8193...].holdsOnly(0)
    )
  }

  /// Who changes a disk gives it a new UUID of its last change, by which differencing images see it; who does not, not.
  @Test func modificationIsRecorded() throws {
    let image = VDIBytes(entries: [0, 1])
    let after = try Self.change(image) { chain, _ in try chain.writeBytes([1], at: 0) }
    #expect(after.bytes[408..<424] != image.bytes[408..<424])
    #expect(after.bytes[392..<408] == image.bytes[392..<408])
    let untouched = try Self.change(image) { chain, _ in _ = try chain.readAll() }
    #expect(untouched.bytes == image.bytes)
  }

  /// An entry on disk leads only to a room that the header counts, and whose bytes are there, at every moment.
  @Test func powerCutWhileClosingLosesNothing() throws {
    let image = VDIBytes(entries: [0, 1, 2, 3, 4, 5, VDIBytes.free, VDIBytes.free])
    let store = CrashStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    try chain.discard(at: 0, count: 2 * 4096)
    try chain.writeBytes([UInt8](repeating: 0x50, count: 4096), at: 7 * 4096)
    try chain.flush()
    let flushed = store.eventCount
    try chain.close()
    var random = SeededRandom.fromEnvironment(or: 61)
    try store.forEachCrashState(cuts: 0...store.eventCount, random: &random) { state in
      let now = try ImageChain.over(MemoryStore(state.bytes), format: VDIFormat.self)
      let content = try now.readAll()
      #expect(
        content[2 * 4096..<6 * 4096].elementsEqual((3...6).flatMap { [UInt8](repeating: $0, count: 4096) }))
      if state.cut >= flushed {
        #expect(content[..<8192].holdsOnly(0) && content[(7 * 4096)...].holdsOnly(0x50))
      }
      let report = try #require(now.top as? any Checkable).check(progress: .none)
      try VDICount.expectNotTooLow(state.bytes, report, "\(state.cut): \(state.story)")
    }
  }
}
