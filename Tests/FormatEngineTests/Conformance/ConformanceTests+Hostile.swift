import FormatEngine
import TestSupport
import Testing

extension ConformanceTests {
  @Test(arguments: ConformanceRow.hostile)
  func damagedBytesGiveErrorsOnly(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 31)
    try row.withFixture { fixture in
      let good = try Files.read(fixture.tablesPath)
      let places = try Self.metadata(of: fixture, good)
      for round in 0..<Effort.rounds(row.size > 5 << 20 ? 10 : 24) {
        var bytes = good
        var changes: [String] = []
        for _ in 0...random.below(3) {
          guard let offset = Self.place(in: places, byteCount: good.count, &random) else { return }
          let value: UInt8 =
            switch random.below(4) {
            case 0: 0
            case 1: 0xff
            case 2: bytes[offset] ^ (1 << UInt8(random.below(8)))
            default: UInt8(random.below(256))
            }
          changes.append("\(offset): \(bytes[offset]) -> \(value)")
          bytes[offset] = value
        }
        let what = "\(row.name), round \(round), \(changes), \(random)"
        try Deadline.within(seconds: 30, what) { try Self.useEverything(fixture, bytes) }
        Tally.add("damaged images", 1)
      }
    }
  }

  @Test(arguments: ConformanceRow.hostile)
  func truncatedFilesGiveErrorsOnly(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 32)
    try row.withFixture { fixture in
      let good = try Files.read(fixture.tablesPath)
      var lengths =
        Array(stride(from: 0, through: min(good.count, 24 * 1024), by: row.size > 1 << 20 ? 1536 : 512)) + [
          1, 71, 103, 511,
        ]
      for _ in 0..<Effort.rounds(8) { lengths.append(random.below(good.count)) }
      Tally.add("damaged images", lengths.count)
      for length in lengths {
        try Deadline.within(seconds: 30, "\(row.name) cut at \(length)") {
          try Self.useEverything(fixture, Array(good.prefix(length)))
        }
      }
    }
  }

  @Test(arguments: ConformanceRow.hostile)
  func anyFailedReadGivesAnErrorOrTheRightBytes(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let model = try fixture.modelAlone()
      let good = try Files.read(fixture.tablesPath)
      let store = FaultStore(MemoryStore(good))
      store.arm(failing: nil)
      _ = try fixture.openAlone(store).readAll()
      let callCount = store.callCount
      #expect(callCount > 0)
      for number in stride(from: 0, to: callCount, by: max(1, callCount / Effort.rounds(20))) {
        store.arm(failing: number)
        guard let chain = try? fixture.openAlone(store) else { continue }
        let first = try? Self.readInPieces(chain)
        if let first { #expect(ModelDisk.firstDifference(first, model.bytes) == nil, "call \(number)") }
        store.arm(failing: nil)
        // What failed once must not stay in a cache as if it had been read.
        let second = try Self.readInPieces(chain)
        #expect(ModelDisk.firstDifference(second, model.bytes) == nil, "again after call \(number)")
      }
    }
  }

  static func readInPieces(_ chain: ImageChain) throws(EngineError) -> [UInt8] {
    var result: [UInt8] = []
    while UInt64(result.count) < chain.virtualSize {
      let count = Int(min(100_000, chain.virtualSize - UInt64(result.count)))
      result += try chain.readBytes(at: UInt64(result.count), count: count)
    }
    return result
  }

  /// Host ranges of a good file that hold no guest bytes.
  private static func metadata(of fixture: Fixture, _ good: [UInt8]) throws -> [Range<Int>] {
    guard fixture.row.format != "raw" else { return [0..<good.count] }
    var isData = [Bool](repeating: false, count: good.count / 512 + 1)
    let store = MemoryStore(good)
    let chain = try fixture.openAlone(store)
    for (_, located) in try chain.allExtents()
    where located.extent.source == .stored && chain.top.store(located.extent.store) === store {
      let start = Int(located.extent.hostOffset ?? 0) / 512
      let end = min(start + Int(located.extent.length) / 512, isData.count)
      if start < end { for sector in start..<end { isData[sector] = true } }
    }
    var ranges: [Range<Int>] = []
    for sector in 0..<good.count / 512 where !isData[sector] {
      let range = sector * 512..<sector * 512 + 512
      // Only what holds something: tables are mostly zeros.
      if good[range].contains(where: { $0 != 0 }) { ranges.append(range) }
    }
    return ranges
  }

  private static func place(in ranges: [Range<Int>], byteCount: Int, _ random: inout SeededRandom) -> Int? {
    guard byteCount > 0 else { return nil }
    if random.oneIn(3) { return random.below(min(byteCount, 144)) }
    guard !ranges.isEmpty else { return random.below(byteCount) }
    let range = ranges[random.below(ranges.count)]
    return range.lowerBound + random.below(range.count)
  }

  /// Uses an image in all ways that read it. Errors of the engine are fine, all else is not.
  static func useEverything(_ fixture: Fixture, _ bytes: [UInt8]) throws {
    let store = MemoryStore(bytes)
    let chain: ImageChain
    do { chain = try fixture.openAlone(store) } catch let error as EngineError {
      #expect(!error.message.isEmpty)
      return
    }
    let layer = chain.top
    walk(chain)
    _ = layer.storesHoles
    if let describing = layer as? any SelfDescribing { _ = describing.formatSpecificInfo }
    if let keeping = layer as? any SnapshotKeeping, let records = try? keeping.snapshots() {
      for record in records.prefix(8) {
        guard let snapshot = try? keeping.openSnapshot(record) else { continue }
        walk(chain.replacing(layerAt: 0, with: snapshot))
      }
    }
    if let checkable = layer as? any Checkable { _ = try? checkable.check(progress: .none) }
    #expect(store.snapshot == bytes)
  }

  /// Extents and reads from the start, the end and the middle; the disk may claim to be huge.
  private static func walk(_ chain: ImageChain) {
    let size = chain.virtualSize
    guard size > 0 else { return }
    var position: UInt64 = 0
    for _ in 0..<200 where position < size {
      guard let found = try? chain.extent(at: position, limit: size - position) else {
        position += max(chain.top.clusterSize, 4096)
        continue
      }
      guard found.extent.length > 0, found.extent.length <= size - position else {
        Issue.record("Extent of \(found.extent.length) at \(position) of \(size)")
        return
      }
      position += found.extent.length
    }
    position = 0
    for _ in 0..<80 where position < size {
      _ = try? chain.readBytes(at: position, count: Int(min(64 * KiB, size - position)))
      position += 64 * KiB
    }
    for offset in [size - 1, size / 2, size / 3] { _ = try? chain.readBytes(at: offset, count: 1) }
  }
}
