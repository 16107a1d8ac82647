import TestSupport
import Testing

@testable import FormatEngine

/// Bitmaps when the power fails, when a call fails, and when the bytes are damaged.
@Suite struct Qcow2BitmapCrashTests {
  /// An image of 1 MiB with bitmaps in which the first 99,840 bytes and 300 KiB from 600 KiB on are dirty.
  static func made(_ options: String) throws -> [UInt8] {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: options, size: 1 << 20)
      // Discards need no clusters: the file stays small.
      try ReferenceTool.io(["discard -q 0 99840", "discard -q 600k 300k"], on: image.path, format: "qcow2")
      return try Files.read(image.path)
    }
  }

  private static func open(_ store: any ByteStore, _ access: FileAccess = .readWrite) throws -> ImageChain {
    try ImageChain.over(store, format: Qcow2Format.self, access: access)
  }

  /// All that the image says of its bitmaps: the list, and the runs of those that can be used.
  struct Bitmaps: Equatable {
    var records: [BitmapRecord]
    var runs: [[Range<UInt64>]] = []

    init(_ chain: ImageChain) throws {
      records = try chain.bitmapLayer.bitmaps()
      for record in records where !record.isInconsistent { runs.append(try chain.dirtyRuns(record.name)) }
    }
  }

  private static func changeAll(_ chain: ImageChain) throws(EngineError) {
    guard let layer = chain.top as? any BitmapChanging else { return }
    try layer.changeBitmaps { editor throws(EngineError) in
      try editor.add("new", granularity: 65536)
      try editor.merge("fine", into: "new")
      try editor.merge("fine", into: "off")
      try editor.clear("middle")
      try editor.remove("coarse")
    }
  }

  @Test(arguments: ["cluster_size=4k", "cluster_size=512"])
  func aPowerCutLeavesTheOldBitmapsOrTheNew(_ options: String) throws {
    let good = try Self.made(options)
    let store = CrashStore(good)
    let chain = try Self.open(store)
    let old = try Bitmaps(chain)
    try Self.changeAll(chain)
    try chain.close()
    let new = try Bitmaps(try Self.open(MemoryStore(store.content)))
    #expect(old != new && new.records.map(\.name) == ["fine", "middle", "off", "new"])
    var random = SeededRandom.fromEnvironment(or: 73)
    let seed = "\(random)"
    var seen: Set<Bool> = []
    try store.forEachCrashState(cuts: 0...store.eventCount, random: &random) { state in
      let moment = "\(state.cut) of \(store.eventCount), \(state.story), \(seed)"
      let chain = try Self.open(MemoryStore(state.bytes))
      let now = try Bitmaps(chain)
      #expect(now == old || now == new, "\(moment)")
      seen.insert(now == new)
      let report = try #require(chain.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(moment): \(report.findings)")
    }
    #expect(seen == [false, true])
  }

  /// What differs from the disk as it was is dirty in every bitmap that says it can be relied on.
  @Test func aPowerCutInASessionLosesNoDirtyBit() throws {
    let good = try Self.made("cluster_size=4k")
    let store = CrashStore(good)
    var random = SeededRandom.fromEnvironment(or: 74)
    for _ in 0..<2 {
      let chain = try Self.open(store)
      _ = try chain.change(&random, count: 2)
      try chain.flush()
      _ = try chain.change(&random, count: 1)
      try chain.close()
    }
    let before = try Self.open(MemoryStore(good)).readAll()
    let seed = "\(random)"
    var usable = 0
    let cuts = stride(from: 0, through: store.eventCount, by: max(1, store.eventCount / Effort.rounds(15)))
    try store.forEachCrashState(cuts: cuts, random: &random) { state in
      let moment = "\(state.cut) of \(store.eventCount), \(state.story), \(seed)"
      let chain = try Self.open(MemoryStore(state.bytes))
      let now = try chain.readAll()
      for record in try chain.bitmapLayer.bitmaps() where record.isEnabled && !record.isInconsistent {
        usable += 1
        var clean = [Bool](repeating: true, count: now.count / 512)
        for run in try chain.dirtyRuns(record.name) {
          for sector in run.lowerBound / 512..<run.upperBound / 512 { clean[Int(sector)] = false }
        }
        let lost = clean.indices.first { sector in
          let bytes = sector * 512..<(sector + 1) * 512
          return clean[sector] && now[bytes] != before[bytes]
        }
        #expect(lost == nil, "\(moment): \(record.name)")
      }
      let report = try #require(chain.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(moment): \(report.findings)")
    }
    #expect(usable > 10)
  }

  @Test(arguments: [524_288, 4 << 20])
  func aPowerCutWhileTheDiskGetsAnotherSizeLeavesBitmapsThatFitIt(_ newSize: UInt64) throws {
    let store = CrashStore(try Self.made("cluster_size=4k"))
    let chain = try Self.open(store)
    let old = try Bitmaps(chain)
    try chain.resize(to: newSize)
    try chain.close()
    let new = try Bitmaps(try Self.open(MemoryStore(store.content)))
    #expect(new.records == old.records)
    #expect((old == new) == (newSize > 1 << 20), "only bits beyond the end are lost")
    var random = SeededRandom.fromEnvironment(or: 76)
    let seed = "\(random)"
    var sizes: Set<UInt64> = []
    try store.forEachCrashState(cuts: 0...store.eventCount, random: &random, randomCount: 1) { state in
      let moment = "\(state.cut) of \(store.eventCount), \(state.story), \(seed)"
      let chain = try Self.open(MemoryStore(state.bytes))
      #expect(try Bitmaps(chain) == (chain.virtualSize == newSize ? new : old), "\(moment)")
      sizes.insert(chain.virtualSize)
      let report = try #require(chain.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(moment): \(report.findings)")
    }
    #expect(sizes == [1 << 20, newSize])
  }

  @Test func anyFailedCallLeavesTheOldBitmapsOrTheNew() throws {
    let good = try Self.made("cluster_size=4k")
    let store = FaultStore(MemoryStore(good))
    let old = try Bitmaps(try Self.open(store))
    do {
      let chain = try Self.open(store)
      store.arm(failing: nil)
      try Self.changeAll(chain)
      try chain.close()
    }
    let callCount = store.callCount
    let new = try Bitmaps(try Self.open(store))
    #expect(callCount > 12)
    for number in 0..<callCount {
      let memory = MemoryStore(good)
      let failing = FaultStore(memory)
      let chain = try Self.open(failing)
      failing.arm(failing: number)
      #expect(throws: EngineError.self, "call \(number)") {
        try Self.changeAll(chain)
        try chain.close()
      }
      let again = try Self.open(MemoryStore(memory.snapshot))
      let now = try Bitmaps(again)
      #expect(now == old || now == new, "call \(number)")
      let report = try #require(again.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "call \(number): \(report.findings)")
      if now == old { try Self.changeAll(again) }
      #expect(try Bitmaps(again) == new, "call \(number)")
    }
  }

  // MARK: Damage

  /// Uses bitmaps in all ways; engine errors are fine.
  private static func useEverything(_ bytes: [UInt8]) {
    guard let chain = try? open(MemoryStore(bytes)), let layer = try? chain.bitmapLayer else { return }
    for record in (try? layer.bitmaps()) ?? [] {
      try? layer.forEachDirtyRun(of: record.name) { _ in }
    }
    _ = try? (chain.top as? any Checkable)?.check(progress: .none)
    try? changeAll(chain)
    try? chain.writeBytes([1], at: 5000)
    try? chain.writeZeros(at: 300_000, count: 200_000)
    try? chain.close()
    for record in (try? layer.bitmaps()) ?? [] {
      try? layer.changeBitmaps { editor throws(EngineError) in try editor.remove(record.name) }
    }
    try? chain.resize(to: 512)
  }

  @Test(arguments: ["cluster_size=4k", "cluster_size=512"])
  func damagedBitmapsGiveErrorsOnly(_ options: String) throws {
    let good = Qcow2Bytes(bytes: try Self.made(options))
    let content = try #require(good.headerExtension(0x2385_2875)).offset
    let directory = Int(good.number(at: content + 16, width: 8))
    let table = Int(good.number(at: directory, width: 8))
    let places = [(content - 8, 32), (directory, 160), (table, 64)]
    var random = SeededRandom.fromEnvironment(or: 75)
    Deadline.within(seconds: 60, "damaged bitmaps, \(random)") {
      for (start, count) in places {
        for offset in start..<min(start + count, good.bytes.count) {
          for value: UInt8 in [0, 1, 0x7f, 0x80, 0xff] where random.below(32) < Effort.rounds(1) {
            var bytes = good.bytes
            bytes[offset] = value
            Self.useEverything(bytes)
          }
        }
      }
      for _ in 0..<Effort.rounds(30) {
        var bytes = good.bytes
        for _ in 0..<1 + random.below(4) {
          let (start, count) = places[random.below(places.count)]
          bytes[min(start + random.below(count), bytes.count - 1)] = UInt8(truncatingIfNeeded: random.next())
        }
        if random.oneIn(4) { bytes.removeLast(random.below(bytes.count / 2)) }
        Self.useEverything(bytes)
      }
    }
  }

  /// A bitmap that is as large as one may be, all of it in a file of some megabytes.
  @Test func theLargestBitmapIsReadInBoundedTimeAndRoom() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", path, "1P")
      let chain = try ImageOpener.open(path, OpenOptions(format: "qcow2", access: .readWrite))
      try chain.bitmapLayer.changeBitmaps { editor throws(EngineError) in
        #expect(throws: EngineError.self) { try editor.add("too fine", granularity: 1 << 17) }
        try editor.add("large", granularity: 1 << 18)
      }
      try chain.writeBytes([1], at: (1 << 50) - 1)
      try chain.writeBytes([1], at: 0)
      try chain.close()
      #expect(try chain.dirtyRuns("large") == [0..<1 << 18, (1 << 50) - (1 << 18)..<1 << 50])
      #expect(try ReferenceTool.check(path).text.contains("corruptions") == false)
    }
  }

  /// More bits than are held at once: the bitmaps come over in several changes.
  @Test func largeBitmapsAreCopiedInGroups() throws {
    let source = try Self.open(MemoryStore(try Self.made("cluster_size=4k")), .readOnly)
    try TemporaryFolder.with { folder in
      let path = folder.file("target")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", path, "1M")
      var switches: [Int] = []
      for holding in [1, BitmapCopier.maximumWaiting] {
        let store = CrashStore(try Files.read(path))
        let target = try Self.open(store)
        try BitmapCopier(from: source.top, skippingBroken: false).copy(to: target, holding: holding)
        #expect(try Bitmaps(target) == Bitmaps(source))
        switches.append(store.events.count { if case .write(0, _) = $0 { true } else { false } })
      }
      #expect(switches[0] == 4 * switches[1])
    }
  }

  @Test func aListThatCannotBeReadStandsInTheWayOfWritesOnly() throws {
    var image = Qcow2Bytes(bytes: try Self.made("cluster_size=4k"))
    let content = try #require(image.headerExtension(0x2385_2875)).offset
    image.put(9, at: content, width: 4)
    let chain = try image.open(.readWrite)
    #expect(throws: EngineError.self) { try chain.bitmapLayer.bitmaps() }
    #expect(try chain.readBytes(at: 0, count: 1 << 20).count == 1 << 20)
    #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 0) }
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 1)
  }

  /// A list or a table that cannot be read: a repair takes the bitmaps off, and the disk can be written to.
  @Test(arguments: [RepairMode.leaks, .all], [true, false])
  func aRepairTakesDamagedBitmapsOff(_ mode: RepairMode, _ isList: Bool) throws {
    var image = Qcow2Bytes(bytes: try Self.made("cluster_size=4k"))
    let content = try #require(image.headerExtension(0x2385_2875)).offset
    let directory = Int(image.number(at: content + 16, width: 8))
    let table = Int(image.number(at: directory, width: 8))
    if isList { image.put(9, at: content, width: 4) } else { image.put(2, at: table + 7, width: 1) }
    let store = MemoryStore(image.bytes)
    let damaged = try ImageChain.over(store, format: Qcow2Format.self, access: .readOnly)
    let before = try damaged.readAll()
    let repairable = try #require(
      ImageChain.over(store, format: Qcow2Format.self, access: .readWrite, isForInspection: true).top
        as? any Repairable)
    let report = try repairable.repair(mode, progress: .none)
    #expect(report.corruptions == 0 && report.leaks == 0, "\(report.findings)")
    #expect(report.corruptionsFixed == 1 && report.leaksFixed > 3)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    #expect(try chain.bitmapLayer.bitmaps() == [])
    #expect(try chain.readAll() == before)
    try chain.writeBytes([1], at: 0)
    try chain.close()
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image")
      let verdict = try ReferenceTool.check(path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
    }
  }

  /// Another program wrote to the disk: what the bitmaps say is worthless, and so they are gone.
  @Test func bitmapsOfAnImageThatWasChangedWithoutThemAreGone() throws {
    let image = Qcow2Bytes(bytes: try Self.made("cluster_size=4k")).with(0, at: 88, width: 8)
    let chain = try image.open(.readWrite)
    #expect(try chain.bitmapLayer.bitmaps() == [])
    try chain.writeBytes([1], at: 0)
    try chain.bitmapLayer.changeBitmaps { editor throws(EngineError) in try editor.add("fine") }
    #expect(try chain.bitmapLayer.bitmaps().map(\.name) == ["fine"])
    #expect(try chain.dirtyRuns("fine") == [])
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0 && report.leaks > 0)
  }

  /// Extra data that a bitmap can be used without is kept; with other extra data it is left alone.
  @Test func extraDataIsKept() throws {
    let good = Qcow2Bytes(bytes: try Self.made("cluster_size=4k"))
    let content = try #require(good.headerExtension(0x2385_2875)).offset
    let directory = Int(good.number(at: content + 16, width: 8))
    // "fine" and its padding make room for 8 bytes more, at the cost of the other bitmaps.
    var image = good.with(1, at: content, width: 4).with(40, at: content + 8, width: 8)
    image.put(8, at: directory + 20, width: 4)
    image.put(0x0102_0304_0506_0708, at: directory + 24, width: 8)
    image.put(UInt64(0x6669_6e65) << 32, at: directory + 32, width: 8)
    for flags: UInt64 in [2, 6] {
      let chain = try image.with(flags, at: directory + 12, width: 4).open(.readWrite)
      #expect(try chain.bitmapLayer.bitmaps().map(\.name) == ["fine"])
      guard flags == 6 else {
        #expect(throws: EngineError.self) { try chain.dirtyRuns("fine") }
        #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 200_000) }
        continue
      }
      let old = try chain.dirtyRuns("fine")
      try chain.writeBytes([1], at: 200_000)
      try chain.close()
      #expect(try chain.dirtyRuns("fine") == old[..<1] + [199_680..<200_192] + old[1...])
      let layer = try #require(chain.top as? Qcow2Layer)
      let list = try Qcow2BitmapDirectory.read(try Qcow2Prologue.read(from: layer.file), from: layer.file)
      #expect(list.bitmaps.map(\.extra) == [[1, 2, 3, 4, 5, 6, 7, 8]])
    }
  }
}
