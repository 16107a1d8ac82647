import TestSupport
import Testing

@testable import FormatEngine

/// What is particular to opened QED images: marks, entries, names.
@Suite struct QEDLayerTests {
  private static let needsCheck: UInt64 = 2

  private static func features(_ store: MemoryStore) -> UInt64 {
    ImageBytes(bytes: store.snapshot, format: QEDFormat.self, isBigEndian: false).number(at: 16, width: 8)
  }

  @Test func firstNewClusterMarksTheImageAndClosingUnmarksIt() throws {
    let store = MemoryStore(try QEDHeaderTests.good().bytes)
    let chain = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    try chain.writeBytes([1, 2, 3], at: 65536)
    #expect(Self.features(store) == 0, "a write in place needs no mark")
    try chain.writeBytes([1, 2, 3], at: 0)
    #expect(Self.features(store) == Self.needsCheck)
    try chain.flush()
    #expect(Self.features(store) == Self.needsCheck)
    try chain.close()
    #expect(Self.features(store) == 0)
  }

  @Test func markedImageIsReadAsItIsAndMendedForWriting() throws {
    var image = try QEDHeaderTests.good().with(Self.needsCheck, at: 16, width: 8)
    // A cluster at the end that nothing refers to.
    image.bytes += [UInt8](repeating: 9, count: 65536)
    let store = MemoryStore(image.bytes)
    let reading = try ImageChain.over(store, format: QEDFormat.self)
    #expect(try reading.readBytes(at: 65536, count: 1) == [11])
    #expect((reading.top as? any SelfDescribing)?.isDirty == true)
    #expect(store.snapshot == image.bytes)
    _ = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    #expect(Self.features(store) == 0)
    #expect(store.snapshot.count == image.bytes.count - 65536)
  }

  @Test func autoclearFeaturesGoWithTheFirstWriteAndCompatibleOnesStay() throws {
    let store = MemoryStore(
      try QEDHeaderTests.good().with(1 << 40, at: 32, width: 8).with(1 << 41, at: 24, width: 8).bytes)
    let chain = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    func field(_ offset: Int) -> UInt64 {
      ImageBytes(bytes: store.snapshot, format: QEDFormat.self, isBigEndian: false).number(
        at: offset, width: 8)
    }
    #expect(field(32) == 1 << 40)
    try chain.writeBytes([1], at: 65536)
    try chain.close()
    #expect(field(32) == 0)
    #expect(field(24) == 1 << 41)
  }

  @Test func zeroClustersHideWhatLiesBelow() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "base.raw")
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", path, folder: folder.path)
      let chain = try ImageOpener.open(path, OpenOptions(format: "qed", access: .readWrite))
      #expect(chain.top.backing == BackingReference(name: "base.raw", format: "raw"))
      let size = try chain.members[0].file.byteCount()
      try chain.writeZeros(at: 0, count: 512 * 1024)
      try chain.close()
      // An L2 table and nothing else.
      #expect(try chain.members[0].file.byteCount() == size + 4 * 65536)
      let content = try ReferenceTool.content(of: path, format: "qed", in: folder)
      #expect(
        Array(content.prefix(512 * 1024)).isZero && content.dropFirst(512 * 1024).holdsOnly(5))
    }
  }

  /// An entry that leads into the L1 table would let a guest write tables.
  @Test func damagedEntryDoesNotTakeGuestBytesIntoATable() throws {
    var image = try QEDHeaderTests.good()
    let table = Int(image.number(at: 65536, width: 8))
    image.put(65536, at: table + 8, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 65536) }
    #expect(throws: EngineError.self) { try chain.writeZeros(at: 65536, count: 65536) }
    #expect(throws: EngineError.self) { try chain.discard(at: 65536, count: 65536) }
    try? chain.close()
    #expect(store.snapshot == image.bytes)
  }

  /// An L2 table that lies over the L1 table would let entries of the one change the other.
  @Test func tableThatLiesOverTheFirstTableIsNotWrittenTo() throws {
    var image = try QEDHeaderTests.good()
    // The second and all further clusters of the L1 table, which are empty.
    image.put(65536 * 2, at: 65536, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 0) }
    #expect(throws: EngineError.self) { try chain.writeZeros(at: 0, count: 65536) }
    try? chain.close()
    #expect(Array(store.snapshot[65536..<5 * 65536]) == Array(image.bytes[65536..<5 * 65536]))
  }

  /// The fields of the name say nothing where the image has no backing file.
  @Test func fieldsOfNoNameAreNotLookedAt() throws {
    let image = try QEDHeaderTests.good().with(UInt64(UInt32.max), at: 56, width: 4)
      .with(UInt64(UInt32.max), at: 60, width: 4)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    let layer = try #require(chain.top as? any BackingChanging)
    try layer.setBacking(BackingReference(name: "below", format: "raw"))
    #expect(try QEDPrologue.read(from: store).backing == BackingReference(name: "below", format: "raw"))
  }

  /// Reading fails for the range of a damaged entry, and for nothing else.
  @Test(arguments: [2, 65535, 0, 1 << 40, UInt64.max - 65535] as [UInt64])
  func damagedEntryFailsForItsRangeOnly(_ value: UInt64) throws {
    var image = try QEDHeaderTests.good()
    let table = Int(image.number(at: 65536, width: 8))
    image.put(value == 0 ? 65536 / 2 : value, at: table + 8, width: 8)
    let chain = try image.open()
    #expect(throws: EngineError.self) { try chain.readBytes(at: 65536, count: 1) }
    #expect(try chain.readBytes(at: 0, count: 65536).isZero)
    #expect(try chain.readBytes(at: 320 * 1024, count: 1) == [15])
  }

  @Test func anotherBackingFileIsRecordedAndTakenAway() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qed", path, "1M", folder: folder.path)
      for (name, format) in [
        ("a", "raw"), ("some/longer name", "qed"), (String(repeating: "n", count: 1023), "raw"),
        ("b", "qcow2"),
      ] {
        let chain = try ImageOpener.open(path, alone).unlocked()
        try Rebaser.setBacking(of: chain, to: BackingReference(name: name, format: format))
        let again = try ImageOpener.open(path, alone).unlocked()
        #expect(
          again.top.backing == BackingReference(name: name, format: format == "raw" ? "raw" : nil))
        let info = try ReferenceTool.qemuImg("info", path, folder: folder.path).stdoutText
        #expect(info.contains("backing file: \(name)"))
      }
      let chain = try ImageOpener.open(path, alone).unlocked()
      #expect(throws: EngineError.self) {
        try Rebaser.setBacking(of: chain, to: BackingReference(name: String(repeating: "n", count: 1024)))
      }
      try Rebaser.setBacking(of: chain, to: nil)
      #expect(try ImageOpener.open(path, alone).top.backing == nil)
      #expect(try ReferenceTool.check(path, format: "qed").leaks == 0)
    }
  }

  private var alone: OpenOptions {
    var options = OpenOptions(format: "qed", access: .readWrite)
    options.backing = .ignore
    return options
  }

  @Test func diskGrowsAndItsNewBytesAreZerosOverALongerBase() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "base.raw")
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", path, "100k", folder: folder.path)
      let chain = try ImageOpener.open(path, OpenOptions(format: "qed", access: .readWrite))
      try chain.resize(to: 900 * 1024)
      try chain.close()
      let content = try ReferenceTool.content(of: path, format: "qed", in: folder)
      #expect(content.count == 900 * 1024)
      #expect(content.prefix(100 * 1024).holdsOnly(5))
      #expect(Array(content.dropFirst(100 * 1024)).isZero)
      #expect(throws: EngineError.self) { try chain.resize(to: 1024) }
      #expect(throws: EngineError.self) { try chain.resize(to: 1 << 47) }
    }
  }

  /// Files have whole sectors for QEMU: what is missing in the last one are zeros.
  @Test func fileCutInsideItsLastSectorIsRead() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qed", "-o", "cluster_size=4096,table_size=2", path, "1M", folder: folder.path)
      try ReferenceTool.io(["write -q -P 3 64k 4k"], on: path, format: "qed")
      let bytes = try Files.read(path)
      try Files.write(Array(bytes.dropLast(12)), to: path)
      let content = try ReferenceTool.content(of: path, format: "qed", in: folder)
      #expect(content[65536] == 3)
      let chain = try ImageOpener.open(path, OpenOptions(format: "qed", access: .readWrite))
      #expect(try chain.readAll() == content)
      let report = try #require(chain.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0 && report.leaks == 0 && report.checkErrors == 0)
      try chain.writeBytes([7], at: 128 << 10)
      try chain.close()
      let now = try ReferenceTool.content(of: path, format: "qed", in: folder)
      #expect(now[128 << 10] == 7 && now[65536] == 3)
      try ReferenceTool.qemuImg("check", "-q", path)
    }
  }

  @Test func emptiedImageReadsAsWhatLiesBelow() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "base.raw")
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", path, folder: folder.path)
      let size = try Files.read(path).count
      let chain = try ImageOpener.open(path, OpenOptions(format: "qed", access: .readWrite))
      try chain.writeBytes([UInt8](repeating: 1, count: 300_000), at: 1000)
      try chain.writeZeros(at: 512 * 1024, count: 65536)
      try Committer.empty(chain)
      #expect(try Files.read(path).count == size)
      #expect(try ReferenceTool.content(of: path, format: "qed", in: folder).holdsOnly(5))
      let verdict = try ReferenceTool.check(path, format: "qed")
      #expect(verdict.corruptions == 0 && verdict.leaks == 0)
    }
  }

  /// QEMU makes images whose tables are one cluster long, and then does not open them.
  @Test func tablesOfOneClusterAreWrittenAndRead() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qed", "-o", "cluster_size=4k,table_size=1", path, "9M", folder: folder.path)
      let chain = try ImageOpener.open(path, alone)
      var random = SeededRandom.fromEnvironment(or: 73)
      var model = ModelDisk(byteCount: 9 << 20)
      for _ in 0..<30 {
        let range = random.range(in: model.byteCount, most: 100_000, unit: 4096)
        let content = random.bytes(range.count)
        try chain.writeBytes(content, at: UInt64(range.lowerBound))
        model.write(content, at: range.lowerBound)
      }
      try chain.close()
      let again = try ImageOpener.open(path, alone)
      #expect(ModelDisk.firstDifference(try again.readAll(), model.bytes) == nil)
      let report = try #require(again.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0 && report.leaks == 0, "\(report)")
    }
  }

  /// The session goes on with the size that the header has, whichever call of a growth fails.
  @Test func failedGrowthLeavesTheOldSize() throws {
    let good = try QEDHeaderTests.good().bytes
    func grow(failing number: Int?) throws -> Int {
      let memory = MemoryStore(good)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
      let old = chain.virtualSize
      store.arm(failing: number)
      var failed = false
      do throws(EngineError) { try chain.resize(to: 3 * old) } catch { failed = true }
      let calls = store.callCount
      store.arm(failing: nil)
      #expect(chain.virtualSize == (failed ? old : 3 * old), "call \(number ?? -1)")
      try chain.close()
      let reopened = try ImageChain.over(MemoryStore(memory.snapshot), format: QEDFormat.self)
      #expect(reopened.virtualSize == chain.virtualSize, "call \(number ?? -1)")
      return calls
    }
    let calls = try grow(failing: nil)
    for number in 0..<calls { _ = try grow(failing: number) }
  }
}
