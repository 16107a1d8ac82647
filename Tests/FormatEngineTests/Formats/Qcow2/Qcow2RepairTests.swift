@testable import FormatEngine
import TestSupport
import Testing

/// What is qcow2's own about repair: images that were not closed, and sizes that are claimed. What each kind of damage leads to is in
/// `RepairTests`.
@Suite struct Qcow2RepairTests {
  private static func layer(_ store: any ByteStore, _ access: FileAccess) throws -> any ImageLayer {
    // As `check` opens images: no file that they name.
    let request = LayerRequest(
      path: "image", access: access, references: ReferenceOpener(isEnabled: false), isForInspection: true)
    return try Qcow2Format.open(store, request)
  }

  private static func check(_ store: any ByteStore) throws -> CheckReport {
    try #require(try layer(store, .readOnly) as? any Checkable).check(progress: .none)
  }

  @discardableResult
  private static func repair(_ store: any ByteStore, _ mode: RepairMode) throws -> CheckReport {
    return try #require(try layer(store, .readWrite) as? any Repairable).repair(mode, progress: .none)
  }

  /// A repair is the size of the file, not of the disk that it claims to be.
  @Test func repairDoesNotGrowWithTheClaimedSize() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "1P")
      var image = Qcow2Bytes(bytes: try Files.read(path))
      image.put(0, at: 48, width: 8)
      image.put(0, at: 56, width: 4)
      let store = MemoryStore(image.bytes)
      try Self.repair(store, .all)
      let after = try Self.check(store)
      #expect(after.corruptions == 0 && after.leaks == 0, "\(after.findings)")
      #expect(store.snapshot.count <= image.bytes.count + 4 * image.clusterSize)
    }
  }

  /// What a table leads to that cannot be read once is not free.
  @Test(arguments: [RepairMode.leaks, .all]) func readErrorTakesNoClusterAway(_ mode: RepairMode) throws {
    var image = try DamageBase.plain.image()
    // A leak, and something to be counted anew.
    image.setCount(image.hostCluster(1), 3)
    for rebuilds in [false, true] {
      if rebuilds { image.setCount(image.hostCluster(2), 0) }
      var number = 0
      var isOver = false
      while !isOver {
        let store = MemoryStore(image.bytes)
        let faulty = FaultStore(store)
        faulty.arm(failing: number, of: [.read])
        _ = try? Self.repair(faulty, mode)
        isOver = faulty.callCount <= number
        let after = try Self.check(store)
        let before = try Self.check(MemoryStore(image.bytes))
        #expect(after.corruptions <= before.corruptions && after.leaks <= before.leaks, "read \(number)")
        let chain = try Qcow2Bytes(bytes: store.snapshot).open()
        for cluster in 0..<2 as Range<UInt64> {
          let bytes = try chain.readBytes(at: cluster * 4096, count: 4096)
          let wanted = try image.open().readBytes(at: cluster * 4096, count: 4096)
          #expect(bytes == wanted, "read \(number)")
        }
        number += 1
      }
    }
  }

  /// Two hundred blocks that are holes speak of three billion clusters.
  @Test func countsInHolesAreNotLookedAtOneByOne() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M,refcount_bits=1", path, "1M")
      let file = try FileStore.open(path, access: .readWrite)
      let clusterSize: UInt64 = 2 << 20
      func number(at offset: UInt64) throws -> UInt64 {
        try file.bytes(at: offset, count: 8).reduce(0) { $0 << 8 | UInt64($1) }
      }
      let table = try number(at: 48)
      let block = try number(at: table)
      for index: UInt64 in 1...200 {
        let place: UInt64 = (15 + index) * clusterSize
        try file.write(bigEndian: place, at: table + index * 8)
      }
      // Clusters 16 to 215 are those blocks, and 8 is a leak.
      var counts = [UInt8](repeating: 0xff, count: 26)
      counts[0] = 1
      try file.write(bytes: counts, at: block + 1)
      try file.resize(to: 216 * clusterSize)
      try file.flush()
      let start = HostClock.threadSeconds
      let report = try Self.repair(file, .leaks)
      #expect(HostClock.threadSeconds - start < 5)
      #expect(report.leaksFixed == 1 && report.corruptions == 0, "\(report.findings)")
      let after = try Self.check(file)
      #expect(after.leaks + after.corruptions == 0, "\(after.findings)")
    }
  }

  /// The same of what asks whether clusters are set aside.
  @Test func longEmptyFileIsLookedThroughAtOnce() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.create(path, format: "qcow2", size: 1 << 20, options: ["cluster_size=512"])
      try ReferenceTool.io(["write -P 1 0 512"], on: path, format: "qcow2")
      try FileStore.open(path, access: .readWrite).resize(to: 8 << 40)
      let start = HostClock.threadSeconds
      let chain = try ImageOpener.open(path)
      #expect(try chain.extent(at: 0, limit: 512).extent.source == .stored)
      #expect(HostClock.threadSeconds - start < 5)
    }
  }

  // MARK: Images that were not closed

  @Test func dirtyImageIsMendedWhenItIsOpenedForWriting() throws {
    var image = try DamageBase.plain.image()
    image.setCount(image.hostCluster(1), 0)
    image.change(72) { $0 | 1 }
    let store = MemoryStore(image.bytes)
    do {
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      try chain.writeBytes([UInt8](repeating: 0xee, count: 4096), at: 9 * 4096)
      try chain.close()
    }
    #expect(Qcow2Bytes(bytes: store.snapshot).number(at: 72, width: 8) & 1 == 0)
    let after = try Self.check(store)
    #expect(after.corruptions + after.leaks == 0, "\(after.findings)")
    let chain = try Qcow2Bytes(bytes: store.snapshot).open()
    #expect(try chain.readBytes(at: 4096, count: 4096).holdsOnly(11))
    #expect(try chain.readBytes(at: 9 * 4096, count: 4096).holdsOnly(0xee))
  }

  @Test func dirtyImageThatCannotBeMendedIsNotWrittenTo() throws {
    var image = try DamageBase.plain.image()
    image.change(image.l2Entry(1)) { $0 + 512 }
    image.change(72) { $0 | 1 }
    let error = try #require(image.openError(.readWrite))
    #expect(error.message.hasPrefix("qcow2: Could not repair dirty image"))
  }

  @Test func dirtyImageIsReadAsItIs() throws {
    var image = try DamageBase.plain.image()
    image.change(72) { $0 | 1 }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self)
    #expect(try chain.readBytes(at: 4096, count: 1) == [11])
    #expect(store.snapshot == image.bytes)
  }

  @Test func corruptImageIsNotWrittenToBeforeItIsMended() throws {
    var image = try DamageBase.plain.image()
    image.change(72) { $0 | 2 }
    #expect(image.openError(.readWrite)?.message == "qcow2: Image is corrupt; cannot be opened read/write")
    let store = MemoryStore(image.bytes)
    try Self.repair(store, .all)
    #expect(Qcow2Bytes(bytes: store.snapshot).openError(.readWrite) == nil)
  }
}
