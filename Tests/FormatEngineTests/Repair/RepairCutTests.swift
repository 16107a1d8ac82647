import FormatEngine
import TestSupport
import Testing

/// The power fails at any write of a repair: nothing that could be read is lost, and the next repair ends well.
@Suite struct RepairCutTests {
  @Test(arguments: RepairSubject.all)
  func aCutInTheMiddleOfARepairLosesNothing(_ subject: RepairSubject) throws {
    var random = SeededRandom.fromEnvironment(or: 73)
    let image = try subject.image(random.seed)
    let others = subject.earlierKinds(random.seed)
    for kind in subject.damages(image) where Effort.current == .soak || !others.contains(kind.name) {
      try expectCutsLoseNothing(subject, image, [kind], &random)
    }
    for _ in 0..<Effort.rounds(1) {
      let kinds = subject.damages(image)
      try expectCutsLoseNothing(
        subject, image, (0..<2 + random.below(4)).map { _ in kinds.any(&random) }, &random)
    }
  }

  private func expectCutsLoseNothing(
    _ subject: RepairSubject, _ image: SoundImage, _ kinds: [DamageKind], _ random: inout SeededRandom
  ) throws {
    var file = DamagedFile(bytes: image.bytes, isBigEndian: image.isBigEndian)
    for kind in kinds { kind.apply(&file, &random) }
    let what = "\(subject.name), \(kinds.map(\.name)), \(random)"
    let store = CrashStore(file.bytes)
    guard let report = try RepairTrial.report(image, store, .all), report.failure == nil else { return }
    let dropsBitmaps = report.findings.contains { $0.hasPrefix("Repairing bitmaps") }
    if kinds.contains(where: { $0.ambiguity != nil }) { return }
    let readable = ReadableContent(image, file.bytes)
    let count = store.eventCount
    // Writes of many MiB make states of many MiB.
    let most = file.bytes.count > 1 << 20 ? 2 : 4
    let cuts = stride(from: 0, through: count, by: max(1, count / Effort.rounds(most / 2)))
    var states = 0
    try Deadline.within(seconds: 300, what) {
      try store.forEachCrashState(cuts: cuts, random: &random, randomCount: 1) { state in
        states += 1
        let what = "\(what), cut \(state.cut) of \(count), \(state.story)"
        func expectNoLoss(_ bytes: [UInt8], _ moment: String) {
          let loss = readable.firstLoss(in: ReadableContent(image, bytes), mayLackBitmaps: dropsBitmaps)
          #expect(loss == nil, "\(what)\(moment): \(loss ?? "")")
        }
        expectNoLoss(state.bytes, "")
        let next = MemoryStore(state.bytes)
        let again = try RepairTrial.report(image, next, .all)
        #expect(
          again != nil && again?.failure == nil && again?.corruptions ?? 0 <= report.corruptions,
          "\(what): \(again?.findings ?? [])")
        expectNoLoss(next.snapshot, ", mended")
      }
    }
    Tally.add("repairs", states)
  }
}
