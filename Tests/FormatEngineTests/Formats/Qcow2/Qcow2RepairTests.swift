import FormatEngine
import TestSupport
import Testing

/// What can be read of an image: each cluster of the disk and of its snapshots, nil where that is an error.
private struct ReadableContent {
  var disk: [[UInt8]?]
  var snapshots: [[[UInt8]?]] = []

  init(_ bytes: [UInt8]) {
    disk = []
    guard let chain = try? Qcow2Bytes(bytes: bytes).open(isForInspection: true) else { return }
    disk = Self.clusters(chain)
    guard let keeping = chain.top as? any SnapshotKeeping, let records = try? keeping.snapshots() else {
      return
    }
    for record in records {
      guard let layer = try? keeping.openSnapshot(record) else { continue }
      snapshots.append(Self.clusters(chain.replacing(layerAt: 0, with: layer)))
    }
  }

  private static func clusters(_ chain: ImageChain) -> [[UInt8]?] {
    let size = chain.top.clusterSize
    return (0..<min(chain.virtualSize / size, 64)).map {
      try? chain.readBytes(at: $0 * size, count: Int(size))
    }
  }

  /// The first place at which something that could be read here reads otherwise in `other`.
  func firstLoss(in other: ReadableContent) -> String? {
    for (index, cluster) in disk.enumerated() {
      guard let cluster else { continue }
      guard index < other.disk.count, other.disk[index] == cluster else { return "cluster \(index)" }
    }
    for (number, snapshot) in snapshots.enumerated() where number < other.snapshots.count {
      for (index, cluster) in snapshot.enumerated() where cluster != nil {
        guard other.snapshots[number][index] == cluster else { return "snapshot \(number), cluster \(index)" }
      }
    }
    return nil
  }
}

/// Check and repair of damaged images, beside the judge's.
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

  private static func damaged(_ damage: Damage, _ base: DamageBase) throws -> Qcow2Bytes {
    var image = try base.image()
    damage.apply(&image)
    return image
  }

  @Test(arguments: Damage.all)
  func damageIsCountedAsTheJudgeCountsIt(_ damage: Damage) throws {
    for base in damage.bases {
      let image = try Self.damaged(damage, base)
      let ours = try Self.check(MemoryStore(image.bytes))
      let what = "\(damage.name), \(base): \(ours.findings)"
      let isMarkedOnly = damage.name.hasPrefix("marked")
      #expect(
        ours.corruptions + ours.leaks + ours.checkErrors > 0 || ours.failure != nil || isMarkedOnly, "\(what)"
      )
      guard damage.judgeDiffers == nil else { continue }
      try TemporaryFolder.with { folder in
        let path = try folder.write(image.bytes, to: "image")
        try folder.write([], to: "image.data")
        let judged = try ReferenceTool.check(path, folder: folder.path)
        #expect(
          [judged.corruptions, judged.leaks, judged.checkErrors]
            == [Int(ours.corruptions), Int(ours.leaks), Int(ours.checkErrors)], "\(what)\n\(judged.text)")
      }
    }
  }

  @Test(arguments: Damage.all)
  func damageIsMendedAndNothingReadableIsLost(_ damage: Damage) throws {
    for base in damage.bases {
      let image = try Self.damaged(damage, base)
      let store = MemoryStore(image.bytes)
      let report = try Self.repair(store, .all)
      let after = try Self.check(store)
      let what = "\(damage.name), \(base): \(report.findings) then \(after.findings)"
      #expect(report.failure == nil, "\(what)")
      #expect(after.leaks == 0 && after.checkErrors == 0, "\(what)")
      #expect(after.corruptions == report.corruptions, "\(what)")
      #expect(store.snapshot.count <= image.bytes.count + 16 * image.clusterSize, "\(what): it grew")
      if base != .dataFile {
        let loss = ReadableContent(image.bytes).firstLoss(in: ReadableContent(store.snapshot))
        #expect(loss == nil, "\(what): \(loss ?? "")")
      }
      let marks = Qcow2Bytes(bytes: store.snapshot).number(at: 72, width: 8) & 3
      switch damage.outcome {
      case .mended:
        #expect(after.corruptions == 0, "\(what)")
        if base != .dataFile { try Self.expectWritable(store.snapshot, what) }
        #expect(base == .version2 || marks == 0, "\(what): still marked")
        try TemporaryFolder.with { folder in
          let path = try folder.write(store.snapshot, to: "image")
          try folder.write([], to: "image.data")
          let judged = try ReferenceTool.check(path, folder: folder.path)
          #expect(judged.corruptions + judged.leaks + judged.checkErrors == 0, "\(what)\n\(judged.text)")
        }
      case .stays: #expect(after.corruptions > 0, "\(what)")
      }
      // A second repair finds nothing to do.
      let again = store.snapshot
      let second = try Self.repair(store, .all)
      #expect(second.corruptionsFixed + second.leaksFixed == 0, "\(what): \(second.findings)")
      #expect(store.snapshot == again, "\(what)")
    }
  }

  /// `-r leaks` frees what is leaked, and changes nothing of what is read.
  @Test(arguments: Damage.all)
  func repairOfLeaksMakesNothingWorse(_ damage: Damage) throws {
    for base in damage.bases where base != .dataFile {
      let image = try Self.damaged(damage, base)
      let store = MemoryStore(image.bytes)
      let before = try Self.check(store)
      let report = try Self.repair(store, .leaks)
      let what = "\(damage.name), \(base): \(report.findings)"
      if report.failure != nil {
        #expect(store.snapshot == image.bytes, "\(what)")
        continue
      }
      let after = try Self.check(store)
      #expect(after.leaks == 0, "\(what)")
      // Counts that were taken down can make flags wrong that stay wrong beside other damage.
      let flags = after.findings.filter { $0.contains("OFLAG_COPIED") }
      #expect(Int(after.corruptions) - flags.count <= Int(before.corruptions), "\(what): \(after.findings)")
      #expect(store.snapshot.count == image.bytes.count, "\(what)")
      #expect(ReadableContent(image.bytes).firstLoss(in: ReadableContent(store.snapshot)) == nil, "\(what)")
    }
  }

  /// A random image with some random damages, and what they are.
  private static func mixture(_ random: inout SeededRandom) throws -> (Qcow2Bytes, what: String) {
    let base = DamageBase.allCases.filter { $0 != .dataFile }[random.below(8)]
    let choices = Damage.all.filter { damage in damage.bases.contains { isLike($0, base) } }
    var image = try base.image()
    var names: [String] = []
    for _ in 0..<2 + random.below(4) {
      let damage = choices[random.below(choices.count)]
      // Offsets in the image are read again for each damage, and the one before may have sent them anywhere.
      guard isUsable(image) else { break }
      damage.apply(&image)
      names.append(damage.name)
    }
    return (image, "\(base): \(names), \(random)")
  }

  @Test func mixturesOfDamageAreMended() throws {
    var random = SeededRandom.fromEnvironment(or: 71)
    for round in 0..<Effort.rounds(60) {
      let (image, what) = try Self.mixture(&random)
      try Deadline.within(seconds: 60, what) { try Self.expectMended(image, "round \(round), \(what)") }
    }
  }

  /// Bytes of the tables and of the header, flipped and set: whatever a repair makes of them, it takes away nothing that
  /// could be read, and ends.
  @Test func repairOfAnyDamagedBytesLosesNothing() throws {
    var random = SeededRandom.fromEnvironment(or: 74)
    for round in 0..<Effort.rounds(80) {
      let base = DamageBase.allCases.filter { $0 != .dataFile }[random.below(8)]
      var image = try base.image()
      let size = image.clusterSize
      let tables = [
        36, image.l1Offset, image.refcountTableOffset, image.refcountBlockOffset, image.l2Offset,
        image.l2Offset, image.snapshotsOffset > 0 ? image.snapshotsOffset : 36,
      ]
      var changes: [String] = []
      for _ in 0...random.below(4) {
        let start = tables[random.below(tables.count)]
        // Of the header what says where the tables are: other versions and features are other images.
        let offset = min(start + random.below(start == 36 ? 24 : 64), image.bytes.count - 1)
        let value: UInt8 =
          random.oneIn(2) ? image.bytes[offset] ^ (1 << UInt8(random.below(8))) : UInt8(random.below(256))
        changes.append("\(offset): \(image.bytes[offset]) -> \(value)")
        image.bytes[offset] = value
      }
      let what = "round \(round), \(base), clusters of \(size): \(changes), \(random)"
      try Deadline.within(seconds: 60, what) { try Self.expectMended(image, what) }
    }
  }

  @Test func aCutInTheRepairOfAMixtureLosesNothing() throws {
    var random = SeededRandom.fromEnvironment(or: 73)
    for round in 0..<Effort.rounds(12) {
      let (image, what) = try Self.mixture(&random)
      guard (try? Self.check(MemoryStore(image.bytes)))?.failure == nil else { continue }
      try Self.expectCutsLoseNothing(image, "round \(round), \(what)", &random)
    }
  }

  /// Whether what makes sense on the one makes sense on the other.
  private static func isLike(_ tried: DamageBase, _ other: DamageBase) -> Bool {
    let special: [DamageBase] = [.snapshot, .compressed, .subclusters, .oneBit, .dataFile]
    return tried == other || !special.contains(tried) && other != .dataFile && other != .oneBit
  }

  private static func isUsable(_ image: Qcow2Bytes) -> Bool {
    let end = image.bytes.count - 3 * image.clusterSize
    let table = image.refcountTableOffset
    guard table > 0, table < end, image.refcountBlockOffset > 0, image.refcountBlockOffset < end else {
      return false
    }
    guard image.l2Offset > 0, image.l2Offset < end else { return false }
    return image.number(at: 60, width: 4) == 0 || (image.snapshotsOffset > 0 && image.snapshotsOffset < end)
  }

  /// A mended image takes writes everywhere, and is sound after them.
  private static func expectWritable(_ bytes: [UInt8], _ what: String) throws {
    let store = MemoryStore(bytes)
    do {
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      let size = chain.top.clusterSize
      let end = min(chain.virtualSize, 64 * size)
      for offset in stride(from: 100, to: end - min(end, 150), by: Int(size)) {
        // A part of a cluster that cannot be unpacked cannot be replaced.
        if (try? chain.readBytes(at: offset, count: 1)) == nil { continue }
        try chain.writeBytes([UInt8](repeating: 0xee, count: 50), at: offset)
      }
      try chain.close()
    } catch {
      Issue.record("\(what): not written: \(error)")
      return
    }
    // Of two that shared a cluster, one has its own now; the flag of the other says less than it could.
    // What was counted past the end of an image without other damage stays so until the file has grown.
    let findings = try check(store).findings.filter {
      !$0.contains("OFLAG_COPIED") && !$0.hasPrefix("Leaked")
    }
    #expect(findings.isEmpty, "\(what), written: \(findings)")
  }

  private static func expectMended(_ image: Qcow2Bytes, _ what: String) throws {
    let store = MemoryStore(image.bytes)
    guard (try? check(store)) != nil else { return }
    let report: CheckReport
    let after: CheckReport
    do {
      report = try repair(store, .all)
      after = try check(store)
    } catch {
      Issue.record("\(what): \(error)")
      return
    }
    #expect(after.leaks == 0 && after.checkErrors == 0, "\(what): \(report.findings) then \(after.findings)")
    #expect(after.corruptions == report.corruptions, "\(what): \(report.findings) then \(after.findings)")
    #expect(store.snapshot.count <= image.bytes.count * 3 + 32 * image.clusterSize, "\(what): it grew")
    let loss = ReadableContent(image.bytes).firstLoss(in: ReadableContent(store.snapshot))
    #expect(loss == nil, "\(what): \(loss ?? ""), \(report.findings)")
    guard after.corruptions == 0 else { return }
    try expectWritable(store.snapshot, what)
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image")
      let judged = try ReferenceTool.check(path)
      #expect(judged.corruptions + judged.leaks + judged.checkErrors == 0, "\(what)\n\(judged.text)")
    }
  }

  /// The power fails at any write of a repair: nothing that could be read is lost, and the next repair ends well.
  @Test(arguments: Damage.all)
  func aCutInTheMiddleOfARepairLosesNothing(_ damage: Damage) throws {
    var random = SeededRandom.fromEnvironment(or: 72)
    for base in damage.bases.prefix(1) where base != .dataFile {
      try Self.expectCutsLoseNothing(
        try Self.damaged(damage, base), "\(damage.name), \(base)", &random)
    }
  }

  private static func expectCutsLoseNothing(
    _ image: Qcow2Bytes, _ what: String, _ random: inout SeededRandom
  ) throws {
    let readable = ReadableContent(image.bytes)
    let store = CrashStore(image.bytes)
    let left = try repair(store, .all).corruptions
    let count = store.eventCount
    let cuts = stride(from: 0, through: count, by: max(1, count / Effort.rounds(4)))
    try store.forEachCrashState(cuts: cuts, random: &random, randomCount: 1) { state in
      let what = "\(what), cut \(state.cut) of \(count), \(state.story)"
      let loss = readable.firstLoss(in: ReadableContent(state.bytes))
      #expect(loss == nil, "\(what): \(loss ?? "")")
      let next = MemoryStore(state.bytes)
      let report = try repair(next, .all)
      #expect(report.corruptions <= left && report.failure == nil, "\(what): \(report.findings)")
      #expect(readable.firstLoss(in: ReadableContent(next.snapshot)) == nil, "\(what), mended")
    }
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
