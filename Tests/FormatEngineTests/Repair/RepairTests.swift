import FormatEngine
import TestSupport
import Testing

/// Damaged images of every format that has a check: what it finds, what a repair makes of them, what a salvage gets out.
@Suite struct RepairTests {
  /// Whatever is damaged alone: in a soak all of it on every kind of image, else each once for a format, and some again.
  @Test(arguments: RepairSubject.all)
  func eachKindOfDamage(_ subject: RepairSubject) throws {
    var random = SeededRandom.fromEnvironment(or: 71)
    var count = 0
    let earlier = subject.earlierKinds(random.seed)
    for round in 0..<Effort.rounds(1) {
      let image = try subject.image(random.seed &+ UInt64(round))
      for kind in subject.damages(image) {
        let isNew = Effort.current == .soak || !earlier.contains(kind.name)
        // A key takes its time.
        guard isNew || (image.passphrase == nil && random.oneIn(10)) else { continue }
        var file = DamagedFile(bytes: image.bytes, isBigEndian: image.isBigEndian)
        kind.apply(&file, &random)
        let what = "\(subject.name), \(kind.name), round \(round), \(random)"
        try Deadline.within(seconds: 60, what) {
          var trial = RepairTrial(subject, image, file.bytes, what)
          trial.isAmbiguous = kind.ambiguity != nil
          trial.asksJudge = isNew
          try trial.expectFound(kind)
          let end = try trial.expectMendedWithoutLoss(&random)
          switch kind.outcome {
          case .mended: #expect(end == .mended, "\(what)")
          case .stays: #expect(end == .stays, "\(what)")
          case .refused: #expect(end == .refused, "\(what)")
          case .depends: break
          }
          try trial.expectLeaksMendedOnly()
          try trial.expectSalvaged()
        }
        count += 1
      }
    }
    Tally.add("repairs", count)
  }

  /// Two to six at once.
  @Test(arguments: RepairSubject.all)
  func mixturesOfDamage(_ subject: RepairSubject) throws {
    var random = SeededRandom.fromEnvironment(or: 72)
    let isEncrypted = try subject.image(random.seed).passphrase != nil
    let rounds = Effort.rounds(isEncrypted ? 1 : 3)
    for round in 0..<rounds {
      let image = try subject.image(random.seed &+ UInt64(round / 4))
      let kinds = subject.damages(image)
      var file = DamagedFile(bytes: image.bytes, isBigEndian: image.isBigEndian)
      var names: [String] = []
      var isAmbiguous = false
      for _ in 0..<2 + random.below(5) {
        let kind = kinds.any(&random)
        kind.apply(&file, &random)
        names.append(kind.name)
        if kind.ambiguity != nil { isAmbiguous = true }
      }
      let what = "\(subject.name), \(names), round \(round), \(random)"
      try Deadline.within(seconds: 60, what) {
        var trial = RepairTrial(subject, image, file.bytes, what)
        trial.isAmbiguous = isAmbiguous
        trial.asksJudge = round.isMultiple(of: 3)
        try trial.expectMendedWithoutLoss(&random)
        try trial.expectLeaksMendedOnly()
        try trial.expectSalvaged()
      }
    }
    Tally.add("repairs", rounds)
  }
}
