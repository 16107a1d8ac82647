import FormatEngine
import Glibc
import TestSupport
import Testing

/// What every format promises, over every row of `ConformanceRow.all`.
@Suite struct ConformanceTests {
  @Test(arguments: ConformanceRow.all)
  func extentsTileTheDiskAndAgreeWithRead(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let chain = try fixture.open()
      #expect(chain.virtualSize == UInt64(fixture.model.byteCount))
      for (start, located) in try chain.allExtents() {
        let expected = fixture.model.read(at: Int(start), count: Int(located.extent.length))
        if located.readsAsZeros { #expect(expected.isZero, "zeros at \(start)") }
        if located.extent.source == .stored && !located.extent.isEncrypted {
          let host = try #require(located.extent.hostOffset)
          let store = chain.members[located.depth].layer.store(located.extent.store)
          let bytes = try store.bytes(at: host, count: Int(located.extent.length))
          #expect(ModelDisk.firstDifference(bytes, expected) == nil, "stored at \(start), host \(host)")
        }
        #expect(
          located.extent.source != .below || located.depth == chain.members.count - 1 || fixture.below != nil)
      }
    }
  }

  @Test(arguments: ConformanceRow.all)
  func extentsFromAnyOffsetAreTheSame(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 11)
    try row.withFixture { fixture in
      let chain = try fixture.open()
      let all = try chain.allExtents()
      for _ in 0..<200 {
        let range = random.range(in: fixture.model.byteCount, most: 400_000)
        let found = try chain.extent(at: UInt64(range.lowerBound), limit: UInt64(range.count))
        #expect(found.extent.length > 0 && found.extent.length <= UInt64(range.count))
        let whole = try #require(all.last { $0.start <= UInt64(range.lowerBound) })
        let inside = UInt64(range.lowerBound) - whole.start
        #expect(found.extent.source == whole.located.extent.source, "at \(range), \(random)")
        #expect(found.readsAsZeros == whole.located.readsAsZeros, "at \(range), \(random)")
        #expect(found.depth == whole.located.depth, "at \(range), \(random)")
        if whole.located.extent.source != .compressed {
          #expect(
            found.extent.hostOffset == whole.located.extent.hostOffset.map { $0 + inside }, "at \(range)")
        }
      }
    }
  }

  @Test(arguments: ConformanceRow.all)
  func readAtAnyOffsetEqualsTheModel(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 12)
    try row.withFixture { fixture in
      let chain = try fixture.open()
      #expect(ModelDisk.firstDifference(try chain.readAll(), fixture.model.bytes) == nil)
      for _ in 0..<200 {
        let range = random.range(in: fixture.model.byteCount, most: 300_000)
        let bytes = try chain.readBytes(at: UInt64(range.lowerBound), count: range.count)
        let wrong = ModelDisk.firstDifference(
          bytes, fixture.model.read(at: range.lowerBound, count: range.count))
        #expect(wrong == nil, "at \(range), \(random)")
      }
    }
  }

  @Test(arguments: ConformanceRow.all)
  func readsBesideEachOtherEqualTheModel(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let chain = try fixture.open()
      let model = fixture.model
      let wrong = Threads.run(4) { number in
        var random = SeededRandom(seed: UInt64(100 + number))
        for _ in 0..<60 {
          let range = random.range(in: model.byteCount, most: 100_000)
          let bytes = try? chain.readBytes(at: UInt64(range.lowerBound), count: range.count)
          if bytes != model.read(at: range.lowerBound, count: range.count) {
            return "thread \(number) at \(range)"
          }
        }
        return nil
      }
      #expect(wrong.isEmpty)
    }
  }

  @Test(arguments: ConformanceRow.all)
  func readPastTheEndIsRefused(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let chain = try fixture.open()
      let end = chain.virtualSize
      for (offset, count) in [
        (end, 1), (end - 1, 2), (UInt64.max, 1), (UInt64.max - 1, 4096), (1 << 63, 512),
      ] {
        #expect(throws: EngineError.self) { try chain.readBytes(at: offset, count: count) }
      }
      #expect(try chain.readBytes(at: end, count: 0).isEmpty)
    }
  }

  @Test(arguments: ConformanceRow.all)
  func readingChangesNoFile(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      var before: [String: [UInt8]] = [:]
      for name in try fixture.folder.names() { before[name] = try Files.read(fixture.folder.file(name)) }
      do {
        let chain = try fixture.open()
        _ = try chain.readAll()
        _ = try chain.allExtents()
        #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 0) }
        #expect(throws: EngineError.self) { try chain.writeZeros(at: 0, count: 512) }
        #expect(throws: EngineError.self) { try chain.discard(at: 0, count: 512) }
      }
      for (name, bytes) in before { #expect(try Files.read(fixture.folder.file(name)) == bytes, "\(name)") }
      #expect(try fixture.folder.names().count == before.count)
    }
  }

  @Test(arguments: ConformanceRow.all)
  func probeClaimsEachFixtureOnce(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let head = Array(try Files.read(fixture.path).prefix(FormatCatalog.probedByteCount))
      var claims: [String] = []
      for format in FormatCatalog.all {
        let score = try head.parsed { (span) throws(EngineError) in format.probe(span, path: fixture.path) }
        if score > .fallback { claims.append(format.name) }
      }
      let found = row.isProbed ? row.format : "raw"
      #expect(claims == (found == "raw" ? [] : [found]))
      var probing = OpenOptions()
      probing.isForInspection = true
      let chain = try ImageOpener.open(fixture.path, probing)
      #expect(chain.members[0].formatName == found)
    }
  }
}
