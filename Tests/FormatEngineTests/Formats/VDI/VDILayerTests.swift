import FormatEngine
import TestSupport
import Testing

@Suite struct VDILayerTests {
  @Test func everyStateOfABlockIsRead() throws {
    let image = VDIBytes(entries: [1, VDIBytes.free, 0, VDIBytes.zeros, 2, 3])
    let chain = try image.open()
    let expected: [UInt8] = [2, 0, 1, 0, 3, 4]
    #expect(try chain.readAll() == expected.flatMap { [UInt8](repeating: $0, count: 4096) })
    let runs = try chain.allExtents().map { "\($0.start / 4096)+\($0.located.extent.length / 4096)" }
    #expect(runs == ["0+1", "1+1", "2+1", "3+1", "4+2"])
  }

  /// Blocks of other sizes than QEMU's, with data of a program before each of them.
  @Test(arguments: [4096, 65536, 1 << 20, 2 << 20], [0, 512, 4096])
  func blocksOfAnySizeAreReadAndWritten(_ blockSize: Int, _ extra: Int) throws {
    let image = VDIBytes(
      blockSize: blockSize, extra: extra, entries: [1, VDIBytes.free, 0], diskSize: 2 * blockSize + 512)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    var model = [UInt8](repeating: 2, count: blockSize) + [UInt8](repeating: 0, count: blockSize)
    model += [UInt8](repeating: 1, count: 512)
    #expect(ModelDisk.firstDifference(try chain.readAll(), model) == nil)
    try chain.writeBytes([7, 8], at: UInt64(blockSize - 1))
    model.replaceSubrange(blockSize - 1..<blockSize + 1, with: [7, 8])
    try chain.close()
    #expect(ModelDisk.firstDifference(try VDIBytes(store.snapshot).open().readAll(), model) == nil)
    let place = 1024 + 1 * (blockSize + extra)
    #expect(store.snapshot[place..<place + extra].holdsOnly(0xee))
  }

  @Test func damagedEntryFailsItsOwnBlockOnly() throws {
    for bad: UInt32 in [2, 99, 0x7fff_ffff, 0xffff_fffd] {
      let chain = try VDIBytes(entries: [0, bad, 1, VDIBytes.free], rooms: 2).open()
      #expect(try chain.readBytes(at: 0, count: 4096).holdsOnly(1))
      let error = #expect(throws: EngineError.self) { try chain.readBytes(at: 4096, count: 1) }
      #expect(error?.code == .corrupt)
      #expect(try chain.readBytes(at: 8192, count: 8192).prefix(4096).holdsOnly(2))
    }
  }

  /// Nothing is written to an image in which a write could reach another block's bytes.
  @Test(arguments: [[0, 0], [0, 9], [0, 0xffff_fffd]] as [[UInt32]])
  func damagedMapIsNotWrittenTo(_ entries: [UInt32]) throws {
    let image = VDIBytes(entries: entries + [VDIBytes.free], rooms: 1)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    let error = #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 8192) }
    #expect(error?.message.contains("check -r all") == true)
    #expect(throws: EngineError.self) { try chain.discard(at: 0, count: 4096) }
    try chain.close()
    #expect(store.snapshot == image.bytes)
  }

  /// 512 TiB less a little: 2 GiB of map, of which a few slices are read.
  @Test func largestDiskIsOpenedAtOnce() throws {
    var image = VDIBytes(blockSize: 1 << 20, entries: [VDIBytes.free])
    image.set(384, 0x1fff_ff80)
    image.set64(368, 0x1_ffff_f800_0000)
    image.set(344, 512 + 0x7fff_fe00)
    let store = MemoryStore(image.bytes)
    try Deadline.within(seconds: 5, "open and look up") {
      let chain = try ImageChain.over(store, format: VDIFormat.self)
      #expect(try chain.readBytes(at: 0, count: 512).isZero)
      #expect(throws: EngineError.self) { try chain.readBytes(at: 1 << 48, count: 512) }
    }
  }
}
