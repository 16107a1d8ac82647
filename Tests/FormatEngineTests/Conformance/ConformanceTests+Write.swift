import FormatEngine
import TestSupport
import Testing

extension ConformanceTests {
  @Test(arguments: ConformanceRow.writable)
  func randomChangesEqualTheModel(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in try Self.changeAtRandom(fixture) }
  }

  /// One kind of every format: tables and data may begin and end anywhere, O_DIRECT takes whole units.
  @Test(arguments: ConformanceRow.writable.firstOfEachFormat)
  func randomChangesEqualTheModelPastThePageCache(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      var fixture = fixture
      fixture.cache = .direct
      try Self.changeAtRandom(fixture)
    }
  }

  private static func changeAtRandom(_ fixture: Fixture) throws {
    var writer: DiskWriter?
    for round in 0..<Effort.rounds(3) {
      let chain = try fixture.open(.readWrite)
      var current = writer ?? DiskWriter(fixture, seed: 21, unit: chain.top.clusterSize)
      for _ in 0..<15 { try current.step(current.nextStep(), on: chain) }
      try current.verify(chain, "round \(round), before the flush")
      try chain.close()
      if round % 2 == 1 { try current.verify(chain, "round \(round), after the flush") }
      writer = current
    }
    let last = try #require(writer)
    try last.verify(try fixture.open(), "reopened")
    try Self.judge(fixture, last.model, allowingLeaks: false)
  }

  @Test(arguments: ConformanceRow.writable)
  func smallWritesBesideEachOtherEqualTheModel(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in try Self.writeBesideEachOther(fixture) }
  }

  @Test(arguments: ConformanceRow.writable.firstOfEachFormat)
  func smallWritesBesideEachOtherEqualTheModelPastThePageCache(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      var fixture = fixture
      fixture.cache = .direct
      try Self.writeBesideEachOther(fixture)
    }
  }

  private static func writeBesideEachOther(_ fixture: Fixture) throws {
    let threadCount = 3
    let stripe = 1536
    let model = Stripes(fixture.model)
    do {
      let chain = try fixture.open(.readWrite)
      let wrong = Threads.run(threadCount) { number in
        var random = SeededRandom(seed: UInt64(number))
        // Each thread has stripes of its own, but clusters are shared by all.
        let stripes = fixture.model.byteCount / stripe
        for _ in 0..<40 {
          let index = random.below(stripes / threadCount) * threadCount + number
          let bytes = random.fill(stripe)
          do {
            try chain.writeBytes(bytes, at: UInt64(index * stripe))
            if random.oneIn(8) { try chain.flush() }
            model.set(bytes, at: index * stripe)
            if try chain.readBytes(at: UInt64(index * stripe), count: stripe) != bytes {
              return "stripe \(index)"
            }
          } catch { return "\(error)" }
        }
        return nil
      }
      #expect(wrong.isEmpty)
      try chain.close()
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.disk.bytes) == nil)
    }
    try Self.judge(fixture, model.disk, allowingLeaks: false)
  }

  /// Each thread changes clusters of its own, the tables are everybody's.
  @Test(arguments: ConformanceRow.writable)
  func changesOfAllKindsBesideEachOtherEqualTheModel(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let model = Stripes(fixture.model)
      do {
        let chain = try fixture.open(.readWrite)
        let unit = max(Int(chain.top.clusterSize), 4096)
        let units = (row.size + unit - 1) / unit
        let threadCount = min(4, units)
        let below = fixture.below
        let wrong = Threads.run(threadCount) { number in
          var random = SeededRandom(seed: UInt64(500 + number))
          var mine = model.disk
          do {
            for _ in 0..<Effort.rounds(16) {
              let index =
                random.below((units - number + threadCount - 1) / threadCount) * threadCount + number
              let start = index * unit
              let range = start..<min(start + unit, row.size)
              let step: DiskWriter.Step =
                switch random.below(5) {
                case 0: .zeros(range)
                case 1: .discard(range)
                default: .write(range, random.fill(range.count))
                }
              try DiskWriter.apply(step, to: chain)
              if random.oneIn(6) { try chain.flush() }
              let now = try chain.readBytes(at: UInt64(start), count: range.count)
              switch step {
              case .write(_, let bytes): mine.write(bytes, at: start)
              case .zeros: mine.writeZeros(at: start, count: range.count)
              case .discard:
                if mine.discard(at: start, reading: now, below: below) != nil { return "\(step)" }
              }
              if mine.read(at: start, count: range.count) != now { return "\(step) reads otherwise" }
              model.set(now, at: start)
            }
          } catch { return "\(error)" }
          return nil
        }
        #expect(wrong.isEmpty)
        try chain.close()
        #expect(ModelDisk.firstDifference(try chain.readAll(), model.disk.bytes) == nil)
      }
      try Self.judge(fixture, model.disk, allowingLeaks: false)
    }
  }

  /// What the judge says of a changed image.
  static func judge(_ fixture: Fixture, _ model: ModelDisk, allowingLeaks: Bool) throws {
    if fixture.row.isCheckedByJudge {
      let verdict = try fixture.verdict()
      #expect(verdict.corruptions == 0 && verdict.checkErrors == 0, "\(verdict.text)")
      if !allowingLeaks { #expect(verdict.leaks == 0, "\(verdict.text)") }
    }
    guard fixture.row.isJudged else { return try Self.judgeOurselves(fixture, model) }
    let content = try ReferenceTool.content(
      of: fixture.path, format: fixture.row.format, in: fixture.folder, passphrase: fixture.row.passphrase)
    #expect(ModelDisk.firstDifference(content, model.bytes) == nil, "the judge reads something else")
  }

  /// Where the judge cannot read an image, our own check has to find nothing, and the model has to be there again.
  private static func judgeOurselves(_ fixture: Fixture, _ model: ModelDisk) throws {
    let chain = try fixture.open()
    let report = try (chain.top as? any Checkable)?.check(progress: .none)
    #expect(report?.findings == [])
    #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "reopened")
  }

  @Test(arguments: ConformanceRow.writable)
  func writePastTheEndIsRefused(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let before = try Files.read(fixture.path)
      do {
        let chain = try fixture.open(.readWrite)
        let end = chain.virtualSize
        #expect(throws: EngineError.self) { try chain.writeBytes([1, 2], at: end - 1) }
        #expect(throws: EngineError.self) { try chain.writeBytes([1], at: UInt64.max) }
        #expect(throws: EngineError.self) { try chain.writeZeros(at: end, count: 1) }
        #expect(throws: EngineError.self) { try chain.writeZeros(at: 0, count: UInt64.max) }
        #expect(throws: EngineError.self) { try chain.discard(at: 1, count: end) }
        try chain.flush()
      }
      #expect(try Files.read(fixture.path) == before)
    }
  }
}
