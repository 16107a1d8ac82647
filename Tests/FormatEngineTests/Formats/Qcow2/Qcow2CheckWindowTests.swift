import TestSupport
import Testing

@testable import FormatEngine

/// A check counts for one window of the file after the other: it finds the same, however small the windows are.
@Suite struct Qcow2CheckWindowTests {
  /// What does not depend on the order of the findings.
  private struct Verdict: Equatable {
    var numbers: [UInt64]
    var findings: [String]

    init(_ report: CheckReport) {
      numbers = [
        report.corruptions, report.leaks, report.checkErrors, report.totalClusters, report.allocatedClusters,
        report.fragmentedClusters, report.compressedClusters, report.imageEndOffset ?? 0,
      ]
      findings = report.findings.sorted()
    }
  }

  private func verdict(_ image: Qcow2Bytes, windowSize: UInt64) throws -> Verdict {
    let store = MemoryStore(image.bytes)
    let prologue = try Qcow2Prologue.read(from: store, toleratingDamage: true)
    var checker = try Qcow2Checker(prologue, file: store, progress: .none, windowSize: windowSize)
    return Verdict(try checker.run())
  }

  private func expectSameVerdicts(_ image: Qcow2Bytes, _ words: String) throws -> Verdict? {
    guard let whole = try? verdict(image, windowSize: .max) else { return nil }
    for size in [1, 2, 5, 64] as [UInt64] {
      let parts = try verdict(image, windowSize: size)
      #expect(parts == whole, "\(words), windows of \(size)")
    }
    return whole
  }

  @Test(arguments: RepairSubject.qcow2)
  func everyDamageIsFoundOnce(_ subject: RepairSubject) throws {
    var random = SeededRandom.fromEnvironment(or: 75)
    let good = try subject.image(71)
    #expect(try expectSameVerdicts(Qcow2Bytes(bytes: good.bytes), "undamaged")?.numbers[0] == 0)
    let earlier = subject.earlierKinds(71)
    for kind in subject.damages(good) where Effort.current == .soak || !earlier.contains(kind.name) {
      var file = DamagedFile(bytes: good.bytes, isBigEndian: true)
      kind.apply(&file, &random)
      _ = try expectSameVerdicts(Qcow2Bytes(bytes: file.bytes), "\(kind.name), \(random)")
    }
  }

  @Test(arguments: DamageBase.allCases)
  func fieldsOfChanceAreFoundAlike(_ base: DamageBase) throws {
    let good = try base.image()
    var chance = SeededRandom(seed: 7)
    var damagedCount = 0
    for round in 0..<30 {
      var image = good
      for _ in 0..<1 + round % 4 {
        let words = image.bytes.count / 8
        let place = Int.random(in: 16..<words, using: &chance) * 8
        let other = Int.random(in: 16..<words, using: &chance) * 8
        let value =
          Bool.random(using: &chance)
          ? image.number(at: other, width: 8) : UInt64.random(in: 0...1 << 20, using: &chance)
        image.put(value, at: place, width: 8)
      }
      if let whole = try expectSameVerdicts(image, "round \(round)"), whole.numbers[0] + whole.numbers[1] > 0
      {
        damagedCount += 1
      }
    }
    #expect(damagedCount > 3, "hardly anything was damaged")
  }

  /// Only windows that a table names are read again, and none is left out.
  @Test func tablesOfOtherWindowsAreNotReadAgain() throws {
    let counts = try Qcow2ClusterCounts(clusterCount: 1000, windowSize: 10)
    #expect(counts.add(1, to: 5) == 0 && counts.passedWindows == 0)
    #expect(counts.addFast(1, to: 25) && counts.passedWindows == 0b100)
    counts.forgetPassed()
    counts.notePassed(35..<62)
    #expect(counts.passedWindows == 0b1111000)
    counts.forgetPassed()
    counts.notePassed(8..<12)
    #expect(counts.passedWindows & 0b10 != 0, "a range may begin in the window and end behind")
    counts.forgetPassed()
    #expect(counts.addFast(1, to: 999))
    #expect(counts.passedWindows == 1 << 63)
    counts.moveOn()
    #expect(counts.wasPassed, "8..<12 reaches into the second window")
    counts.moveOn()
    #expect(counts.wasPassed, "25 lies in the third")
    for _ in 0..<5 { counts.moveOn() }
    #expect(!counts.wasPassed, "nothing lies in 70..<80")
    for _ in 0..<92 { counts.moveOn() }
    #expect(counts.wasPassed, "the last bit stands for all windows behind")
    #expect(counts.window == 990..<1000 && counts.windowBit == 1 << 63)
    #expect(counts[999] == 0)
  }

  @Test func countsHaveABound() throws {
    let counts = try Qcow2ClusterCounts(clusterCount: 1 << 31, windowSize: Qcow2ClusterCounts.usualWindowSize)
    #expect(counts.byteCount <= 40 << 20)
    #expect(counts.window.count == 20 << 20)
  }

  @Test func moreLargeCountsThanAnybodyHasAreRefused() throws {
    let counts = try Qcow2ClusterCounts(clusterCount: 1 << 19)
    for cluster in 0..<UInt64(1 << 18) { _ = counts.add(70_000, to: cluster) }
    #expect(counts.isExact && counts[0] == 70_000)
    _ = counts.add(70_000, to: 1 << 18)
    #expect(!counts.isExact)
    let usual = try Qcow2ClusterCounts(clusterCount: 1 << 19, maximumCount: 65535)
    for cluster in 0..<UInt64(1 << 19) { #expect(usual.add(65535, to: cluster) == 0) }
    #expect(usual.isExact && usual.countable(7) == 65535)
    #expect(usual.add(3, to: 7) == 3 && usual.countable(7) == 65535)
  }

  /// A reference past the end is refused, also when another one has made the file's last cluster known before.
  @Test func referencesPastTheEndAreRefusedInEveryPass() throws {
    var image = try DamageBase.compressed.image()
    let clusterSize = DamageBase.compressed.clusterSize
    image.bytes += [UInt8](repeating: 0, count: (clusterSize - image.bytes.count % clusterSize) % clusterSize)
    let end = UInt64(image.bytes.count)
    // A plain entry for the first cluster behind the file; then a packed one that reaches into it by a sector.
    image.put(1 << 63 | end, at: image.l2Offset, width: 8)
    let sectorShift = UInt64(62 - (12 - 8))
    image.put(1 << 62 | 1 << sectorShift | (end - 512), at: image.l2Offset + 8, width: 8)
    for size in [1, 2, 5, .max] as [UInt64] {
      let findings = try verdict(image, windowSize: size).findings
      #expect(findings.contains { $0.contains("exceeding the end") }, "windows of \(size): \(findings)")
      #expect(findings.contains { $0.hasSuffix("refcount=0 reference=1") }, "windows of \(size): \(findings)")
    }
    _ = try expectSameVerdicts(image, "past the end")
  }

  /// Opened to be written, a dirty image is mended first: its tables may lie anywhere.
  @Test(arguments: [1 << 40, 1 << 20, 1 << 62] as [UInt64])
  func dirtyImageWithATablePastTheEndIsMendedOrRefused(_ place: UInt64) throws {
    var image = try DamageBase.plain.image()
    image.change(72) { $0 | 1 }
    image.put(place, at: 40, width: 8)
    let store = MemoryStore(image.bytes)
    do throws(EngineError) {
      _ = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    } catch {
      #expect([.corrupt, .invalidArgument, .tooLarge].contains(error.code), "\(error)")
    }
  }
}
