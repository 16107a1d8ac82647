import FormatEngine
import Glibc
import TestSupport
import Testing

extension ConformanceTests {
  /// Rows whose whole image is one file, and that open quickly: LUKS writes its data as AES does.
  static let oneFileRows = ConformanceRow.writable.filter { row in
    switch row.maker {
    case .engine(let options, _): row.isOneFile && options["encrypt.format"] != "luks"
    case .judge: row.isOneFile
    case .built: true
    }
  }

  /// Small disks of every kind: each power cut leaves several states, and each is read whole.
  static let powerCutRows = oneFileRows.filter {
    $0.size <= 1 << 20 || $0.extentFile != nil
      || ["our VDI, dynamic", "our VHDX, dynamic", "our VHDX, differencing"].contains($0.name)
      || $0.name.contains("ubclusters") && $0.size <= 2 << 20
  }

  /// Every call of a run of changes fails once. What was not touched stays, what was is old or new, the
  /// image stays sound, and the next change works.
  @Test(arguments: oneFileRows)
  func anyFailedCallWhileWritingLeavesASoundImage(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let good = try Files.read(fixture.tablesPath)
      let store = FaultStore(MemoryStore(good))
      _ = try Self.changeAll(fixture, store, armed: nil)
      let callCount = store.callCount
      #expect(callCount >= 12)
      for number in stride(from: 0, to: callCount, by: max(1, callCount / Effort.rounds(5))) {
        let memory = MemoryStore(good)
        let model = try Self.changeAll(fixture, FaultStore(memory), armed: number)
        try Self.expectSound(fixture, memory.snapshot, model, "after call \(number) failed")
      }
    }
  }

  /// The file system is full from one call on: errors, and a sound image.
  @Test(arguments: oneFileRows)
  func aFullHostLeavesASoundImage(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let good = try Files.read(fixture.tablesPath)
      for number in [0, 1, 2, 3, 5, 9, 15] {
        let memory = MemoryStore(good)
        let store = FaultStore(memory)
        do {
          let chain = try Self.overLower(fixture, store)
          var writer = DiskWriter(fixture, seed: 42, unit: chain.top.clusterSize)
          store.arm(failing: number, forEver: true, of: [.write, .writeZeros, .resize], errno: ENOSPC)
          for _ in 0..<8 { try? DiskWriter.apply(writer.nextStep(), to: chain) }
          try? chain.close()
        }
        try Self.expectSound(fixture, memory.snapshot, nil, "full after call \(number)")
      }
    }
  }

  /// The guest's bytes could not be written: the room for them is given back.
  @Test(arguments: oneFileRows)
  func failedWriteOfGuestBytesLeaksNothing(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let memory = MemoryStore(try Files.read(fixture.tablesPath))
      let store = FaultStore(memory)
      var failures = 0
      do {
        let chain = try Self.overLower(fixture, store)
        var random = SeededRandom.fromEnvironment(or: 43)
        for _ in 0..<6 {
          let range = random.range(in: fixture.model.byteCount, most: 100_000)
          // Not from the tables: they are written by flushes.
          store.arm(failing: 0, of: [.write])
          do throws(EngineError) {
            try chain.writeBytes(random.fill(range.count), at: UInt64(range.lowerBound))
          } catch { failures += 1 }
          store.arm(failing: nil)
        }
        try chain.close()
      }
      #expect(failures > 0)
      try Files.write(memory.snapshot, to: fixture.tablesPath)
      guard row.isCheckedByJudge else { return }
      let verdict = try fixture.verdict()
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
    }
  }

  /// Any call of a resize fails once: in the file the disk has the old size or the new one, and what it held it holds,
  /// also when it is written to afterwards. (The session itself may go on with the other size.)
  @Test(arguments: oneFileRows, [false, true])
  func aFailedResizeLeavesOneSize(_ row: ConformanceRow, growing: Bool) throws {
    try row.withFixture { fixture in
      guard fixture.below == nil, row.size <= 3 << 20 else { return }
      let good = try Files.read(fixture.tablesPath)
      let old = UInt64(fixture.model.byteCount)
      let new = growing ? old + 3 * MiB + 512 : (old / 2).aligned(upTo: 4096)
      let kept = min(old, new)
      func resize(failing number: Int?) throws -> (calls: Int, failed: Bool) {
        let memory = MemoryStore(good)
        let store = FaultStore(memory)
        let chain = try Self.overLower(fixture, store)
        store.arm(failing: number, of: Self.changingCalls)
        var failed = false
        do throws(EngineError) { try chain.resize(to: new) } catch { failed = true }
        let calls = store.callCount
        store.arm(failing: nil)
        if number == nil, failed { return (0, true) }
        var expected = fixture.model.read(at: 0, count: Int(kept))
        let place = kept / 3
        let bytes = [UInt8](repeating: 0x5a, count: 5000)
        do throws(EngineError) {
          try chain.writeBytes(bytes, at: place)
          expected.replaceSubrange(Int(place)..<Int(place) + bytes.count, with: bytes)
          try chain.close()
        } catch {
          // A format may refuse every change once its tables in memory are not what is on disk: all with that error.
          #expect(failed && error.message.hasPrefix("Injected failure"), "call \(number ?? -1)")
        }
        let reopened = try fixture.openAlone(MemoryStore(memory.snapshot))
        #expect([old, new].contains(reopened.virtualSize), "call \(number ?? -1)")
        let now = try reopened.readBytes(at: 0, count: Int(kept))
        #expect(ModelDisk.firstDifference(now, expected) == nil, "call \(number ?? -1)")
        return (calls, failed)
      }
      let calls = try resize(failing: nil).calls
      for number in stride(from: 0, to: calls, by: max(1, calls / Effort.rounds(8))) {
        _ = try resize(failing: number)
      }
    }
  }

  private static let changingCalls: Set<StoreCall> = [.write, .writeZeros, .resize, .flush, .read]

  /// The fixture's chain with `store` in the place of its top file.
  private static func overLower(_ fixture: Fixture, _ store: any ByteStore) throws -> ImageChain {
    let lower = try fixture.open().members.dropFirst()
    let top = try fixture.openAlone(store, .readWrite).members
    return ImageChain(members: top + lower, access: .readWrite)
  }

  /// A run of changes of which the call `armed` fails; gives what the disk must read like.
  private static func changeAll(_ fixture: Fixture, _ store: FaultStore, armed: Int?) throws -> ModelDisk {
    let chain = try overLower(fixture, store)
    var writer = DiskWriter(fixture, seed: 41, unit: chain.top.clusterSize)
    // Each reason in its turn.
    store.arm(failing: armed, of: changingCalls, errno: (armed ?? 0) % 2 == 0 ? EIO : ENOSPC)
    for number in 0..<12 {
      let step = writer.nextStep()
      var failed = false
      do throws(EngineError) { try DiskWriter.apply(step, to: chain) } catch { failed = true }
      // Looking at the result is not part of the run.
      store.isPaused = true
      if failed { try writer.followFailed(step, on: chain) } else { try writer.follow(step, on: chain) }
      store.isPaused = false
      if number % 4 == 3 { try? chain.flush() }
    }
    store.isPaused = true
    try writer.verify(chain, "after all changes, call \(armed ?? -1) failed")
    try chain.close()
    return writer.model
  }

  /// Our own check and the judge's find no damage, and the disk reads like the model.
  static func expectSound(_ fixture: Fixture, _ bytes: [UInt8], _ model: ModelDisk?, _ moment: String) throws
  {
    let path = fixture.tablesPath
    try Files.write(bytes, to: path)
    if let model {
      let content = try fixture.open().readAll()
      #expect(ModelDisk.firstDifference(content, model.bytes) == nil, "reopened, \(moment)")
    }
    guard fixture.row.isCheckedByJudge else { return }
    let marks = ["qcow2": 79, "parallels": 44]
    if let mark = marks[fixture.row.format], bytes[mark] & 1 != 0 {
      // Marked as being in use: its counts may be wrong, and whoever writes to it next sets them right.
      _ = try ReferenceTool.qemuImg.run(["check", "-q", "-r", "all", path], folder: fixture.folder.path)
    }
    if fixture.row.format == "vdi", model == nil {
      // Not closed: the header may count more rooms than are in use, which the judge takes for an error.
      try VDICount.settle(path, moment)
    }
    if fixture.row.format == "vhdx", fixture.row.isJudged {
      // Not closed: its log is to be replayed, which the judge does not do for those who only read.
      _ = try ReferenceTool.qemuImg.run(["check", "-q", "-r", "all", path], folder: fixture.folder.path)
    }
    let verdict = try fixture.verdict()
    #expect(verdict.corruptions == 0 && verdict.checkErrors == 0, "\(moment): \(verdict.text)")
  }

  /// Power cut after any write: whatever of the unsynced writes is on disk, the image is sound and all
  /// that was flushed before is whole.
  @Test(arguments: powerCutRows)
  func powerCutAtAnyWriteKeepsWhatWasFlushed(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let store = CrashStore(try Files.read(fixture.tablesPath))
      let history = try History(fixture, store)
      var random = SeededRandom.fromEnvironment(or: 52)
      let seed = "\(random)"
      var judged = 0
      let cuts = stride(from: 0, through: store.eventCount, by: max(1, store.eventCount / Effort.rounds(16)))
      try store.forEachCrashState(cuts: cuts, random: &random, randomCount: 2) { state in
        let moment = "cut after \(state.cut) of \(store.eventCount), \(state.story), \(seed)"
        let memory = MemoryStore(state.bytes)
        let chain = try Self.overLower(fixture, memory)
        try history.expectFlushed(chain, state.cut, moment)
        if let checkable = chain.top as? any Checkable {
          let report = try checkable.check(progress: .none)
          if row.format == "vdi" {
            try VDICount.expectNotTooLow(state.bytes, report, moment)
          } else {
            #expect(report.corruptions == 0, "\(moment): \(report.findings.prefix(3))")
          }
        }
        judged += 1
        if judged % 12 == 0 { try Self.expectSound(fixture, state.bytes, nil, moment) }
      }
    }
  }

  /// What was flushed when, in a run of changes.
  private struct History {
    struct Flush {
      var eventCount: Int
      var model: ModelDisk
      var stepCount: Int
    }

    var flushes: [Flush]
    var touched: [Range<Int>]

    init(_ fixture: Fixture, _ store: CrashStore) throws {
      let chain = try overLower(fixture, store)
      var writer = DiskWriter(fixture, seed: 51, unit: chain.top.clusterSize)
      var flushes = [Flush(eventCount: 0, model: fixture.model, stepCount: 0)]
      for number in 0..<20 {
        try writer.step(writer.nextStep(), on: chain)
        guard number % 5 == 4 else { continue }
        try chain.flush()
        flushes.append(Flush(eventCount: store.eventCount, model: writer.model, stepCount: number + 1))
      }
      self.flushes = flushes
      touched = writer.touched
    }

    /// Every byte that no later change touched reads as it was when it was flushed.
    func expectFlushed(_ chain: ImageChain, _ cut: Int, _ moment: String) throws {
      guard let flush = flushes.last(where: { $0.eventCount <= cut }) else { return }
      var expected = flush.model
      var now = ModelDisk(try chain.readAll())
      // Changes after the flush may be there or not; all else must be.
      for range in touched[flush.stepCount...] {
        expected.writeZeros(at: range.lowerBound, count: range.count)
        now.writeZeros(at: range.lowerBound, count: range.count)
      }
      #expect(ModelDisk.firstDifference(now.bytes, expected.bytes) == nil, "\(moment)")
    }
  }
}
