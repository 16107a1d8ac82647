import FormatEngine
import TestSupport
import Testing

@Suite struct VDIResizeTests {
  /// With room behind the map; and without, so that the first blocks move to the end.
  @Test(arguments: [4096, 512], [1, 2] as [UInt32])
  func growingKeepsTheContentAndAddsZeros(_ mapRoom: Int, _ type: UInt32) throws {
    var entries = (0..<128).map { UInt32(127 - $0) }
    if type == 1 { entries[5] = VDIBytes.free }
    if type == 1 { entries[122] = VDIBytes.zeros }
    let image = VDIBytes(type: type, entries: entries.map { $0 }, rooms: 128, mapRoom: mapRoom)
    var sound = image
    if type == 1 {
      // Two rooms that nothing leads to would be holes; the image is mended first.
      sound = try Self.repaired(image)
    }
    let before = try sound.open().readAll()
    let store = MemoryStore(sound.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    try chain.resize(to: 300 * 4096 + 512)
    try chain.writeBytes([9], at: 299 * 4096)
    try chain.close()
    let after = try VDIBytes(store.snapshot).open()
    let content = try after.readAll()
    #expect(content.count == 300 * 4096 + 512)
    #expect(ModelDisk.firstDifference(Array(content.prefix(before.count)), before) == nil)
    #expect(content[299 * 4096] == 9)
    #expect(content[before.count..<299 * 4096].holdsOnly(0))
    let report = try #require(after.top as? any Checkable).check(progress: .none)
    #expect(report.findings.isEmpty, "\(report.findings)")
    if type == 2 { #expect(VDIBytes(store.snapshot).field(388) == 301) }
  }

  private static func repaired(_ image: VDIBytes) throws -> VDIBytes {
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite, isForInspection: true)
    _ = try #require(chain.top as? any Repairable).repair(.all, progress: .none)
    return VDIBytes(store.snapshot)
  }

  /// Bytes of the last block that lay past the old end, or were cut off, do not come back.
  @Test func whatWasCutOffDoesNotComeBack() throws {
    let store = MemoryStore(VDIBytes(entries: [0, 1, 2], diskSize: 3 * 4096 - 512).bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    try chain.resize(to: 4096 + 512)
    #expect(VDIBytes(store.snapshot).entries == [0, 1])
    #expect(store.snapshot.count == 1024 + 2 * 4096)
    try chain.resize(to: 4 * 4096)
    let content = try chain.readAll()
    #expect(content[4096..<4608].holdsOnly(2) && content[4608...].holdsOnly(0))
    try chain.close()
    #expect(try VDIBytes(store.snapshot).open().readAll() == content)
  }

  /// The parent is longer than the disk was.
  @Test func grownDifferencingImageDoesNotShowItsParent() throws {
    try TemporaryFolder.with { folder in
      try folder.write(VDIBytes(entries: [0, 1, 2], id: 0xa1).bytes, to: "base.vdi")
      let image = VDIBytes(
        type: 4, entries: [VDIBytes.free, VDIBytes.free], diskSize: 4096 + 512, id: 0xb1, parent: 0xa1)
      let path = try folder.write(image.bytes, to: "child.vdi")
      let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
      try chain.resize(to: 3 * 4096)
      try chain.close()
      let content = try ImageOpener.open(path).readAll()
      #expect(content[..<4096].holdsOnly(1) && content[4096..<4608].holdsOnly(2))
      #expect(content[4608...].holdsOnly(0))
    }
  }

  @Test func sizesThatTheFormatCannotHaveAreRefused() throws {
    let store = MemoryStore(VDIBytes(entries: [0, 1]).bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    for size: UInt64 in [1 << 62, 0x1_ffff_f800_0000 + 512, 8192 + 1, 0x1fff_ff80 * 4096 + 512] {
      #expect(throws: EngineError.self) { try chain.resize(to: size) }
    }
    #expect(chain.virtualSize == 8192)
    try chain.close()
    #expect(
      try VDIBytes(store.snapshot).open().readAll() == [1, 2].flatMap { [UInt8](repeating: $0, count: 4096) })
  }

  @Test(arguments: [Preallocation.metadata, .falloc, .full])
  func addedBlocksGetRoomInAdvance(_ preallocation: Preallocation) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(VDIBytes(entries: [0]).bytes, to: "disk.vdi")
      let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
      try chain.resize(to: 4 * 4096, preallocation: preallocation)
      try chain.close()
      let after = VDIBytes(try Files.read(path))
      #expect(after.entries == [0, 1, 2, 3] && after.field(388) == 4)
      #expect(try after.open().readBytes(at: 4096, count: 3 * 4096).isZero)
    }
  }

  /// At every moment the disk has its old size or its new one, and all its content.
  @Test(arguments: [(200 * 4096, 512), (200 * 4096, 2048), (3 * 4096 + 512, 512)] as [(UInt64, Int)])
  func powerCutWhileResizingLosesNothing(_ newSize: UInt64, _ mapRoom: Int) throws {
    let image = VDIBytes(entries: (0..<128).map { $0 < 6 ? UInt32(5 - $0) : VDIBytes.free }, mapRoom: mapRoom)
    let before = try image.open().readAll()
    let store = CrashStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    try chain.resize(to: newSize)
    try chain.close()
    var random = SeededRandom.fromEnvironment(or: 62)
    var sizes: Set<UInt64> = []
    try store.forEachCrashState(cuts: 0...store.eventCount, random: &random) { state in
      let moment = "\(state.cut): \(state.story)"
      let now = try ImageChain.over(MemoryStore(state.bytes), format: VDIFormat.self)
      sizes.insert(now.virtualSize)
      #expect(now.virtualSize == newSize || now.virtualSize == UInt64(before.count), "\(moment)")
      let kept = Int(min(newSize, UInt64(before.count)))
      #expect(try now.readBytes(at: 0, count: kept) == Array(before.prefix(kept)), "\(moment)")
      let report = try #require(now.top as? any Checkable).check(progress: .none)
      try VDICount.expectNotTooLow(state.bytes, report, moment)
    }
    #expect(sizes.count == 2)
  }

  // MARK: Failures

  /// Blocks in the first ten rooms of a map that has room for no other entry.
  private static let full = VDIBytes(entries: (0..<128).map { $0 < 10 ? $0 : VDIBytes.free })

  private static func expectSound(_ store: MemoryStore, _ content: [UInt8], _ moment: String) throws {
    let chain = try VDIBytes(store.snapshot).open()
    let now = try chain.readBytes(at: 0, count: content.count)
    #expect(ModelDisk.firstDifference(now, content) == nil, "\(moment)")
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    try VDICount.expectNotTooLow(store.snapshot, report, moment)
  }

  /// Writes blocks that have no room yet, as far as the image still takes any.
  private static func writeNewBlocks(_ chain: ImageChain, _ content: inout [UInt8], _ moment: String) {
    for block in [20, 21, 40] {
      let bytes = [UInt8](repeating: UInt8(100 + block), count: 4096)
      do throws(EngineError) {
        try chain.writeBytes(bytes, at: UInt64(block * 4096))
        content.replaceSubrange(block * 4096..<(block + 1) * 4096, with: bytes)
      } catch {
        // Every change may be refused where nobody knows what is on disk.
        #expect(error.message.hasPrefix("Injected failure"), "\(moment)")
      }
    }
  }

  /// Any call of a growth fails for which the first blocks move: new blocks get room that is nobody else's, and the moved ones
  /// are still there.
  @Test(arguments: [false, true]) func failedMoveOfTheMapLosesNothing(_ isForEver: Bool) throws {
    let before = try Self.full.open().readAll()
    func grow(failing number: Int?) throws -> Int {
      let moment = "call \(number ?? -1)"
      let memory = MemoryStore(Self.full.bytes)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
      store.arm(failing: number, forEver: isForEver)
      var failed = false
      do throws(EngineError) { try chain.resize(to: 300 * 4096) } catch { failed = true }
      let calls = store.callCount
      store.arm(failing: nil)
      #expect(failed == (number != nil) && chain.virtualSize == (failed ? 128 : 300) * 4096, "\(moment)")
      var content = before
      Self.writeNewBlocks(chain, &content, moment)
      let now = try chain.readBytes(at: 0, count: content.count)
      #expect(ModelDisk.firstDifference(now, content) == nil, "open, \(moment)")
      try chain.close()
      try Self.expectSound(memory, content, moment)
      // Once more, from what is there now.
      let again = try ImageChain.over(memory, format: VDIFormat.self, access: .readWrite)
      try again.resize(to: 300 * 4096)
      try again.close()
      try Self.expectSound(memory, content, "again, \(moment)")
      return calls
    }
    let calls = try grow(failing: nil)
    #expect(calls > 20)
    for number in 0..<calls { _ = try grow(failing: number) }
  }

  /// The session goes on with the size that the header has, whichever call of a shrink fails; what was cut off is not
  /// lost half.
  @Test(arguments: [false, true]) func failedShrinkLeavesOneSize(_ isForEver: Bool) throws {
    let image = VDIBytes(entries: (0..<40).map { $0 % 2 == 0 ? $0 / 2 : VDIBytes.free })
    let (old, new) = (UInt64(40 * 4096), UInt64(16 * 4096 + 512))
    let before = try image.open().readAll()
    func shrink(failing number: Int?) throws -> Int {
      let moment = "call \(number ?? -1)"
      let memory = MemoryStore(image.bytes)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
      store.arm(failing: number, forEver: isForEver)
      try? chain.resize(to: new)
      let calls = store.callCount
      store.arm(failing: nil)
      try chain.flush()
      let recorded = UInt64(VDIBytes(memory.snapshot).field(368))
      #expect(chain.virtualSize == recorded, "\(moment)")
      // What the disk gets back is zeros, and in rooms of its own.
      var content = before
      if recorded == new {
        content.replaceSubrange(Int(new)..., with: [UInt8](repeating: 0, count: Int(old - new)))
      }
      let part = Int(min(recorded, new))
      for block in [1, 3, 5, 7, 9] {
        let bytes = [UInt8](repeating: UInt8(200 + block), count: 4096)
        do throws(EngineError) {
          try chain.writeBytes(bytes, at: UInt64(block * 4096))
          content.replaceSubrange(block * 4096..<(block + 1) * 4096, with: bytes)
        } catch { #expect(error.message.hasPrefix("Injected failure"), "\(moment)") }
      }
      try chain.close()
      try Self.expectSound(memory, Array(content.prefix(part)), moment)
      let again = try ImageChain.over(memory, format: VDIFormat.self, access: .readWrite)
      try again.resize(to: old)
      try again.writeBytes([7], at: old - 1)
      content[Int(old) - 1] = 7
      try again.close()
      try Self.expectSound(memory, content, "grown again, \(moment)")
      return calls
    }
    let calls = try shrink(failing: nil)
    for number in 0..<calls { _ = try shrink(failing: number) }
  }

  /// More entries than the cache has room for go to disk while they are set: the header has counted their rooms by then.
  @Test func roomsAreCountedBeforeEntriesLeadToThem() throws {
    let sparse = SparseStore()
    try sparse.write(bytes: VDIBytes(entries: [0], mapRoom: 3 << 20).bytes, at: 0)
    let store = FaultStore(sparse)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    // In the middle of 512 slices that are written together.
    store.arm(failing: 300, forEver: true, of: [.write])
    #expect(throws: EngineError.self) { try chain.resize(to: 600_000 * 4096, preallocation: .metadata) }
    let now = VDIBytes(try sparse.bytes(at: 0, count: 512 + 600_000 * 4))
    let end = now.entries.filter { $0 < VDIBytes.zeros }.map { $0 + 1 }.max() ?? 0
    #expect(end > 100_000)
    #expect(now.field(388) >= end, "\(now.field(388)) counted, \(end) in use")
  }
}
