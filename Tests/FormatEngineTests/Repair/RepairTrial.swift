import FormatEngine
import TestSupport
import Testing

/// One damaged image, and what must hold of its check, its repair and its salvage.
struct RepairTrial {
  enum End {
    /// It does not open, even to be mended.
    case refused
    /// Something is left.
    case stays
    case mended
  }

  let subject: RepairSubject
  let image: SoundImage
  let damaged: [UInt8]
  /// For messages.
  let what: String
  /// The judge looks at the result, too.
  var asksJudge = true
  let before: ReadableContent
  /// Of the kinds of damage: what reads otherwise after a repair may be meant.
  var isAmbiguous = false

  init(_ subject: RepairSubject, _ image: SoundImage, _ damaged: [UInt8], _ what: String) {
    (self.subject, self.image, self.damaged, self.what) = (subject, image, damaged, what)
    before = ReadableContent(image, damaged)
  }

  /// Checks and, with a mode, repairs, as the verb does. Nil where it does not open, or comes to no end.
  static func report(_ image: SoundImage, _ store: any ByteStore, _ mode: RepairMode?) throws -> CheckReport?
  {
    let files = MemoryFiles(image, store)
    guard let chain = try? files.open(mode == nil ? .readOnly : .readWrite, isForInspection: true) else {
      return nil
    }
    guard let mode else {
      return try? (chain.top as? any Checkable)?.check(progress: .none)
    }
    let layer = try #require(chain.top as? any Repairable)
    return try? layer.repair(mode, progress: .none)
  }

  func check(_ bytes: [UInt8]) throws -> CheckReport? {
    let store = MemoryStore(bytes)
    let report = try Self.report(image, store, nil)
    let isUnchanged = store.snapshot == bytes
    #expect(isUnchanged, "\(what): a check changed the file")
    return report
  }

  /// `check -r all`.
  @discardableResult
  func expectMendedWithoutLoss(_ random: inout SeededRandom) throws -> End {
    let store = MemoryStore(damaged)
    guard let report = try Self.report(image, store, .all), report.failure == nil else {
      // It says why it cannot go on. What it had mended by then stays mended.
      expectNoLoss(in: store.snapshot, "refused", mayLackBitmaps: true)
      return .refused
    }
    let what = "\(what): \(report.findings.prefix(12))"
    let dropsBitmaps = report.findings.contains { $0.hasPrefix("Repairing bitmaps") }
    expectNoLoss(in: store.snapshot, "\(report.findings.prefix(12))", mayLackBitmaps: dropsBitmaps)
    #expect(store.snapshot.count <= 3 * damaged.count + (24 << 20), "\(what): it grew")
    guard let after = try check(store.snapshot) else {
      Issue.record("\(what): is not checked any more")
      return .stays
    }
    #expect(after.checkErrors == 0 && after.failure == nil, "\(what), then \(after.findings.prefix(6))")
    #expect(after.corruptions == report.corruptions, "\(what), then \(after.findings.prefix(6))")
    #expect(after.leaks == report.leaks, "\(what), then \(after.findings.prefix(6))")
    // What stays has a name.
    #expect(after.corruptions + after.leaks == 0 || !after.findings.isEmpty || format == "qed", "\(what)")
    #expect(
      after.corruptions > 0 || after.leaks == 0 || subject.keepsLeaks,
      "\(what): leaks stay beside nothing else")
    let mended = store.snapshot
    let again = try Self.report(image, store, .all)
    #expect(again.map { $0.corruptionsFixed + $0.leaksFixed } == 0, "\(what): again \(again?.findings ?? [])")
    // Not in the expectation: it would print all bytes.
    let isUnchanged = store.snapshot == mended
    #expect(isUnchanged, "\(what): the second repair changed something")
    guard after.corruptions == 0 else { return .stays }
    // What is sound does not say otherwise.
    if format == "qcow2", mended.count > 80, mended[7] == 3 {
      #expect(mended[79] & 3 == 0, "\(what): still marked")
    }
    if asksJudge && subject.isJudged { try expectJudged(mended, what) }
    if subject.isWritable { try expectWritable(mended, what, &random) }
    return .mended
  }

  private var format: String { image.formatName }

  private func expectNoLoss(in bytes: [UInt8], _ story: String, mayLackBitmaps: Bool = false) {
    if isAmbiguous { return }
    let loss = before.firstLoss(in: ReadableContent(image, bytes), mayLackBitmaps: mayLackBitmaps)
    #expect(loss == nil, "\(what): lost \(loss ?? ""), \(story)")
  }

  /// `check -r leaks`: what is read stays as it is, and so does all other damage.
  func expectLeaksMendedOnly() throws {
    let store = MemoryStore(damaged)
    let found = try check(damaged)
    guard let report = try Self.report(image, store, .leaks), report.failure == nil else {
      expectNoLoss(in: store.snapshot, "leaks, refused", mayLackBitmaps: true)
      return
    }
    let what = "\(what), leaks: \(report.findings.prefix(12))"
    let dropsBitmaps = report.findings.contains { $0.hasPrefix("Repairing bitmaps") }
    expectNoLoss(in: store.snapshot, "leaks", mayLackBitmaps: dropsBitmaps)
    guard let after = try check(store.snapshot) else {
      Issue.record("\(what): is not checked any more")
      return
    }
    #expect(after.corruptions == report.corruptions && after.leaks == report.leaks, "\(what)")
    // Counts that were taken down can make flags wrong that stay wrong beside other damage.
    let flags = after.findings.count { $0.contains("OFLAG_COPIED") }
    if let found {
      #expect(
        Int(after.corruptions) - flags <= Int(found.corruptions), "\(what), then \(after.findings.prefix(6))")
      if found.corruptions == 0, !subject.keepsLeaks {
        let kept = after.findings.count { $0.contains("only the redundant grain table has an entry") }
        #expect(after.leaks == kept, "\(what), then \(after.findings.prefix(6))")
      }
    }
    // A redundant table that is missing is a leak, too.
    #expect(store.snapshot.count <= damaged.count + (format == "vmdk" ? 65536 : 512), "\(what): it grew")
  }

  /// `convert --salvage` gives every sector that can be read, zeros for the others, and names those.
  func expectSalvaged() throws {
    guard let disk = before.disk, disk.bytes.count < ReadableContent.Disk.maximumByteCount,
      let source = try? MemoryFiles(image, MemoryStore(damaged)).open(.readOnly)
    else { return }
    let target = MemoryStore([UInt8](repeating: 0, count: (disk.bytes.count + 511) / 512 * 512))
    let told = Told()
    var options = ConvertOptions()
    options.salvage = { told.add($0) }
    options.threadCount = 1
    do throws(EngineError) {
      try Converter.convert(
        from: [source],
        to: try ImageChain.over(target, format: RawFormat.self, access: .readWrite), options)
    } catch {
      Issue.record("\(what): salvage failed: \(error)")
      return
    }
    let salvaged = target.snapshot
    if salvaged.equals(disk.bytes, from: 0, to: 0, count: disk.bytes.count) { return expectTold(told, disk) }
    for place in 0..<disk.bytes.count where salvaged[place] != disk.bytes[place] {
      // Of a sector that the file ends in, the salvage has the part that is there.
      let byte =
        disk.unreadable.contains(place / 512) ? try? source.readBytes(at: UInt64(place), count: 1) : nil
      guard byte == [salvaged[place]] else {
        Issue.record("\(what): salvaged something else at \(place)")
        break
      }
    }
    expectTold(told, disk)
  }

  private func expectTold(_ told: Told, _ disk: ReadableContent.Disk) {
    #expect(told.sectors == disk.unreadable, "\(what): other sectors were named")
  }

  /// What a check finds: something, and as much as the judge.
  func expectFound(_ kind: DamageKind) throws {
    guard let found = try check(damaged) else { return }
    let count = found.corruptions + found.leaks + found.checkErrors
    #expect(count > 0 || found.failure != nil || kind.isSilent || kind.outcome == .depends, "\(what)")
    #expect(!kind.isSilent || count == 0, "\(what): \(found.findings)")
    guard kind.judgeDiffers == nil, subject.isJudged, subject.isCountedByJudge, asksJudge else { return }
    // It does not go on with some images at all.
    guard let judged = try? judge(damaged) else { return }
    #expect(
      [judged.corruptions, judged.leaks, judged.checkErrors]
        == [Int(found.corruptions), Int(found.leaks), Int(found.checkErrors)],
      "\(what): \(found.findings)\n\(judged.text)")
  }

  // MARK: The judge

  private func expectJudged(_ bytes: [UInt8], _ what: String) throws {
    let judged: ReferenceTool.Verdict
    do { judged = try judge(bytes) } catch {
      Issue.record("\(what): the judge does not take it: \(error)")
      return
    }
    #expect(
      judged.corruptions + judged.checkErrors == 0 && (judged.leaks == 0 || subject.keepsLeaks),
      "\(what)\n\(judged.text)")
  }

  private func judge(_ bytes: [UInt8]) throws -> ReferenceTool.Verdict {
    try TemporaryFolder.with { folder in
      let path = try image.write(bytes, in: folder)
      return try ReferenceTool.check(
        path, format: format, folder: folder.path, passphrase: image.passphrase)
    }
  }

  // MARK: Writing

  /// A mended image takes writes everywhere, reads what was written, and is sound after them.
  private func expectWritable(_ bytes: [UInt8], _ what: String, _ random: inout SeededRandom) throws {
    let store = MemoryStore(bytes)
    let files = MemoryFiles(image, store)
    var last = "opening"
    do {
      let chain = try files.open(.readWrite)
      let content = ReadableContent.Disk(chain, image.tables)
      var model = ModelDisk(content.bytes)
      let unit = Int(max(chain.top.clusterSize, 512))
      for _ in 0..<5 where model.byteCount > 0 {
        let range = random.range(in: model.byteCount, most: min(3 * unit, 200_000), unit: unit)
        let touched =
          range.lowerBound / unit * unit..<min((range.upperBound + unit - 1) / unit * unit, model.byteCount)
        // A part of a cluster that cannot be read cannot be replaced.
        guard content.canRead(touched) else { continue }
        let step: DiskWriter.Step =
          switch random.below(5) {
          case 0: .zeros(range)
          case 1: .discard(range)
          default: .write(range, random.fill(range.count))
          }
        last = "\(step)"
        try DiskWriter.apply(step, to: chain)
        switch step {
        case .write(_, let bytes): model.write(bytes, at: range.lowerBound)
        case .zeros: model.writeZeros(at: range.lowerBound, count: range.count)
        case .discard:
          let now = try chain.readBytes(at: UInt64(range.lowerBound), count: range.count)
          let wrong = model.discard(
            at: range.lowerBound, reading: now, below: image.below.map(ModelDisk.init))
          #expect(wrong == nil, "\(what), discarded")
        }
      }
      last = "closing"
      try chain.close()
      let again = ReadableContent.Disk(try files.open(.readOnly), image.tables)
      var expected = content
      expected.bytes = model.bytes
      #expect(expected.firstLoss(in: again) == nil, "\(what), written: reads otherwise")
    } catch {
      Issue.record("\(what), \(last): not written: \(error)")
      return
    }
    // Of two that shared a cluster, one has its own now; the flag of the other says less than it could.
    // What was counted past the end of an image without other damage stays so until the file has grown.
    let findings = try check(store.snapshot)?.findings.filter {
      !$0.contains("OFLAG_COPIED") && !$0.hasPrefix("Leaked")
    }
    #expect(findings == [], "\(what), written")
  }
}

extension SoundImage {
  /// Writes all of its files, with these bytes for those with the tables, and gives the path to open.
  func write(_ bytes: [UInt8], in folder: TemporaryFolder) throws -> String {
    for (name, content) in others { try folder.write(content, to: name) }
    guard let extent else { return try folder.write(bytes, to: "image") }
    try folder.write(bytes, to: extent.name)
    return try folder.write(extent.descriptor, to: "image")
  }
}

/// What a salvage says that it could not read.
private final class Told: Sendable {
  private let lines = Guarded<[String]>([])

  func add(_ line: String) { lines.withLock { $0.append(line) } }

  /// The sectors that were named.
  var sectors: Set<Int> {
    var result: Set<Int> = []
    for line in lines.withLock({ $0 }) where line.hasPrefix("error while reading offset ") {
      let rest = line.dropFirst("error while reading offset ".count)
      if let offset = Int(rest.prefix { $0.isNumber }) { result.insert(offset / 512) }
    }
    return result
  }
}
