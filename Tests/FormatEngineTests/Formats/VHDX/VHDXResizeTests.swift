import TestSupport
import Testing

@testable import FormatEngine

private let mebibyte = 1 << 20

@Suite struct VHDXResizeTests {
  /// In its place while there is room; then the BAT moves to the end of the file.
  @Test func growsAndShrinksWithItsContent() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("x.vhdx")
      try VHDXBytes.new(3 * mebibyte + 512, mebibyte, 512)
        .write(to: try FileStore.create(path, cache: .unflushed))
      var random = SeededRandom.fromEnvironment(or: 64)
      var model = ModelDisk(random.bytes(3 * mebibyte + 512))
      var chain = try VHDXLayerTests.open(path, .readWrite)
      try chain.writeBytes(model.bytes, at: 0)
      // 131072 entries to a MiB of BAT: 200 GiB need two.
      for size in [5 * mebibyte, 200 << 30, 210 << 30, 4 * mebibyte + 512, 2 * mebibyte + 1024, 6 * mebibyte]
      {
        try chain.resize(to: UInt64(size))
        try chain.close()
        let verdict = try ReferenceTool.check(path, format: "vhdx")
        #expect(verdict.corruptions == 0, "\(size): \(verdict.text)")
        let count = min(size, model.byteCount)
        model = ModelDisk(
          Array(model.bytes[..<count]) + [UInt8](repeating: 0, count: max(0, min(size, 8 * mebibyte) - count))
        )
        chain = try VHDXLayerTests.open(path, .readWrite)
        #expect(chain.virtualSize == UInt64(size))
        #expect(
          ModelDisk.firstDifference(try chain.readBytes(at: 0, count: model.byteCount), model.bytes) == nil,
          "\(size)")
        let last = UInt64(size) - 512
        try chain.writeBytes([UInt8](repeating: 4, count: 512), at: last)
        #expect(try chain.readBytes(at: last, count: 512).holdsOnly(4))
        try chain.writeZeros(at: last, count: 512)
        if size <= model.byteCount { model.writeZeros(at: size - 512, count: 512) }
      }
      #expect(throws: EngineError.self) { try chain.resize(to: 65 << 40) }
      #expect(throws: EngineError.self) { try chain.resize(to: 1000) }
    }
  }

  /// The file may end with the disk, inside of the last block; when the disk grows the rest of it is needed.
  @Test func lastBlockThatIsCutOffGrows() throws {
    let size = 3 << 19
    var image = try VHDXBytes(size: size)
    image.append(mebibytes: 2, of: 7)
    for block in [0, 1] { image.setEntry(block, 6, mebibyte: UInt64(4 + block)) }
    image.bytes.removeLast(1 << 19)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    try chain.resize(to: 3 << 20)
    let disk = [UInt8](repeating: 7, count: size) + [UInt8](repeating: 0, count: (3 << 20) - size)
    #expect(try chain.readAll() == disk)
    try chain.writeBytes([1, 2, 3], at: 5 << 19)
    try chain.close()
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image")
      try ReferenceTool.qemuImg("check", "-q", "-f", "vhdx", path)
      let content = try ReferenceTool.content(of: path, format: "vhdx", in: folder)
      #expect(Array(content.prefix(5 << 19)) == Array(disk.prefix(5 << 19)))
    }
  }

  @Test func shrinkingGivesRoomBack() throws {
    let store = MemoryStore(try VHDXBytes(size: 8 * mebibyte).bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    try chain.writeBytes([UInt8](repeating: 1, count: 8 * mebibyte), at: 0)
    try chain.close()
    #expect(store.snapshot.count == 12 * mebibyte)
    try chain.resize(to: UInt64(mebibyte + 512))
    #expect(store.snapshot.count == 6 * mebibyte)
    try chain.resize(to: UInt64(3 * mebibyte))
    #expect(
      try chain.readAll().enumerated().allSatisfy { $0.element == ($0.offset < mebibyte + 512 ? 1 : 0) })
  }

  @Test func fixedImageGrowsWithRoom() throws {
    let store = MemoryStore(try VHDXBytes(size: mebibyte, isFixed: true).bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    try chain.resize(to: UInt64(3 * mebibyte))
    try chain.close()
    let image = VHDXBytes(store.snapshot)
    #expect((0..<3).allSatisfy { image.entry($0).state == .fullyPresent })
    #expect(image.bytes.count == 7 * mebibyte)
  }

  /// What comes into a differencing disk is zeros, though the parent is longer.
  @Test func longerParentDoesNotShowThrough() throws {
    try TemporaryFolder.with { folder in
      let parent = try FileStore.create(folder.file("p.vhdx"), cache: .unflushed)
      try VHDXBytes.new(4 * mebibyte, mebibyte, 512).write(to: parent)
      parent.unlock()
      let below = try VHDXLayerTests.open(folder.file("p.vhdx"), .readWrite)
      try below.writeBytes([UInt8](repeating: 1, count: 4 * mebibyte), at: 0)
      try below.close()
      let locator = try VHDXParentLocator(
        name: "p.vhdx", linkage: try VHDXHeader.readCurrent(from: parent).0.dataWriteGuid)
      let path = folder.file("c.vhdx")
      try VHDXBytes.new(mebibyte + 512, mebibyte, 512, false, locator)
        .write(to: try FileStore.create(path, cache: .unflushed))
      let chain = try VHDXLayerTests.open(path, .readWrite)
      try chain.writeBytes([3], at: UInt64(mebibyte) + 5)
      try chain.resize(to: UInt64(3 * mebibyte))
      try chain.close()
      let now = try VHDXLayerTests.open(path).readAll()
      #expect(now[mebibyte + 5] == 3)
      #expect(
        now.enumerated().allSatisfy {
          $0.element == ($0.offset >= mebibyte + 512 ? 0 : $0.offset == mebibyte + 5 ? 3 : 1)
        })
    }
  }

  /// The power fails at any moment of a change of size, with a BAT that moves: the disk has the old size or the new one,
  /// and what it had in both.
  @Test(arguments: [5 * mebibyte, 200 << 30, mebibyte + 512])
  func powerCutLeavesTheOldOrTheNewSize(_ newSize: Int) throws {
    let size = 3 * mebibyte
    var random = SeededRandom.fromEnvironment(or: 65)
    let content = random.bytes(size)
    let first = MemoryStore(try VHDXBytes(size: size).bytes)
    do {
      let chain = try ImageChain.over(first, format: VHDXFormat.self, access: .readWrite)
      try chain.writeBytes(content, at: 0)
      try chain.close()
    }
    let store = CrashStore(first.snapshot)
    do {
      let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
      try chain.resize(to: UInt64(newSize))
      try chain.close()
    }
    var seen: Set<UInt64> = []
    let seed = "\(random)"
    try store.forEachCrashState(cuts: 0...store.eventCount, random: &random, randomCount: 1) { state in
      let moment = "\(newSize): cut after \(state.cut) of \(store.eventCount), \(state.story), \(seed)"
      let memory = MemoryStore(state.bytes)
      let reader = try ImageChain.over(memory, format: VHDXFormat.self)
      let kept = min(size, newSize)
      #expect(try reader.readBytes(at: 0, count: kept) == Array(content[..<kept]), "\(moment)")
      let writer = try ImageChain.over(memory, format: VHDXFormat.self, access: .readWrite)
      #expect(writer.virtualSize == reader.virtualSize)
      seen.insert(writer.virtualSize)
      if writer.virtualSize > UInt64(size) {
        #expect(try writer.readBytes(at: UInt64(size), count: mebibyte).holdsOnly(0), "\(moment)")
      }
      // A BAT of two MiB takes its time.
      guard newSize < 1 << 30 || state.cut % 8 == 0 else { return }
      let report = try (writer.top as? any Checkable)?.check(progress: .none)
      #expect(report?.corruptions == 0, "\(moment): \(report?.findings.first ?? "")")
    }
    #expect(seen == [UInt64(size), UInt64(newSize)])
  }

  /// A differencing disk has entries for whole chunks. What an interrupted shrink left in those past its end may lead to
  /// room that is another block's by now: a larger disk does not let go of it.
  @Test func leftOverEntriesOfASmallerDiskMeanNothing() throws {
    let parent = try VHDXParentLocator(name: "p.vhdx", linkage: VHDXGuid(9, 9, 9, 9))
    var image = try VHDXBytes(size: 5 * mebibyte, parent: parent)
    for block in 0..<4 {
      image.append(mebibytes: 1, of: UInt8(1 + block))
      image.setEntry(block, 6, mebibyte: UInt64(4 + block))
    }
    image.setEntry(9, 6, mebibyte: 6)
    image.setEntry(4095, 6, mebibyte: 7)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    try chain.resize(to: UInt64(10 * mebibyte))
    for block in [4, 5, 6] {
      try chain.writeBytes([UInt8](repeating: 0xee, count: mebibyte), at: UInt64(block * mebibyte))
    }
    try chain.close()
    let after = VHDXBytes(store.snapshot)
    #expect(!after.entry(9).isStored && !after.entry(4095).isStored)
    let now = try after.open()
    for block in 0..<4 {
      let bytes = try now.readBytes(at: UInt64(block * mebibyte), count: mebibyte)
      #expect(bytes.holdsOnly(UInt8(1 + block)), "\(block)")
    }
    #expect(try now.readBytes(at: UInt64(9 * mebibyte), count: mebibyte).isZero)
    let report = try #require(now.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0, "\(report.findings)")
  }
}
