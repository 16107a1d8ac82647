import TestSupport
import Testing

@testable import FormatEngine

@Suite struct ParallelsWriterTests {
  private func image(_ image: ParallelsImage = .small) -> [UInt8] {
    var random = SeededRandom(seed: 76)
    return image.build(&random)
  }

  private func open(_ store: any ByteStore) throws -> ImageChain {
    try ImageChain.over(store, format: ParallelsFormat.self, access: .readWrite)
  }

  private func mark(_ store: MemoryStore) throws -> UInt32 {
    try store.snapshot.parsed { (span) throws(EngineError) in try span.littleEndian(UInt32.self, at: 44) }
  }

  @Test func imageIsInUseFromTheFirstWriteToItsClosing() throws {
    for closed in [0, ParallelsHeader.closedMark] {
      var small = ParallelsImage.small
      small.inUse = closed
      let store = MemoryStore(image(small))
      let chain = try open(store)
      #expect(try mark(store) == closed)
      try chain.writeBytes([1], at: 0)
      #expect(try mark(store) == ParallelsHeader.inUseMark)
      try chain.flush()
      #expect(try mark(store) == ParallelsHeader.inUseMark)
      try chain.close()
      #expect(try mark(store) == closed)
    }
  }

  @Test func freedRoomIsUsedAgainOnceItIsFreeOnDisk() throws {
    let store = MemoryStore(image())
    let chain = try open(store)
    let count = store.snapshot.count
    try chain.discard(at: 0, count: 65536)
    try chain.writeBytes([1], at: 10 * 65536)
    #expect(store.snapshot.count == count + 65536, "an entry on disk still points to the freed cluster")
    try chain.flush()
    try chain.writeBytes([2], at: 11 * 65536)
    try chain.close()
    #expect(store.snapshot.count == count + 65536)
    #expect(try chain.readBytes(at: 11 * 65536, count: 2) == [2, 0])
    #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(0))
  }

  /// The format keeps no list of free clusters: they are found when the image is opened.
  @Test func holesInTheDataAreUsedByTheNextWriter() throws {
    var small = ParallelsImage.small
    small.places[5] = nil
    let store = MemoryStore(image(small))
    let chain = try open(store)
    try chain.writeBytes([1], at: 7 * 65536)
    try chain.close()
    #expect(store.snapshot.count == image().count)
    #expect(try chain.extent(at: 7 * 65536, limit: 512).extent.hostOffset == UInt64(small.dataOffset + 65536))
    #expect(try chain.readBytes(at: 7 * 65536, count: 65536) == [1] + [UInt8](repeating: 0, count: 65535))
  }

  @Test func fileEndsWithTheDataAfterClosing() throws {
    let store = MemoryStore(image())
    let chain = try open(store)
    try chain.writeZeros(at: 31 * 65536, count: 65536)
    try chain.close()
    #expect(store.snapshot.count == image().count - 65536)
  }

  @Test func openingForWritingMendsDamageAndTells() throws {
    for (offset, value, words) in [
      (64, UInt32(9), "Repairing cluster 0 is outside image"),
      (68, 3, "Repairing duplicate offset in BAT entry 1"),
      (44, ParallelsHeader.inUseMark, "Repairing image was not closed correctly"),
      (48, 0xffff_ffff, "Repairing data_off field has incorrect value"),
    ] {
      var bytes = image()
      bytes.put(littleEndian: value, at: offset)
      let store = MemoryStore(bytes)
      let notes = Notes()
      var request = LayerRequest(path: "memory", access: .readWrite, references: ReferenceOpener())
      request.note = { notes.add($0) }
      let layer = try ParallelsFormat.open(store, request)
      #expect(notes.all.contains(words), "\(notes.all)")
      #expect(try (layer as? any Checkable)?.check(progress: .none).corruptions == 0)
    }
  }

  /// Over another image nothing may become a hole: what lies below would show.
  @Test func overlayOfTheCommandLineHidesWhatLiesBelow() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 3)
      let base = random.bytes(2 << 20)
      try folder.write(base, to: "base")
      try folder.write(image(), to: "top")
      let name =
        "json:{\"driver\":\"parallels\",\"file\":{\"driver\":\"file\",\"filename\":\"\(folder.file("top"))\"},"
        + "\"backing\":{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"\(folder.file("base"))\"}}}"
      var model = ModelDisk(base)
      let own = ParallelsImage.small.disk(image())
      for index in [0, 1, 5, 31] {
        model.write(Array(own[index * 65536..<(index + 1) * 65536]), at: index * 65536)
      }
      let chain = try ImageOpener.open(name, OpenOptions(access: .readWrite))
      #expect(try chain.readAll() == model.bytes)
      for (start, count) in [(0, 65536), (3 * 65536, 65536), (5 * 65536 + 100, 300_000)] {
        try chain.writeZeros(at: UInt64(start), count: UInt64(count))
        model.writeZeros(at: start, count: count)
      }
      try chain.writeBytes([1, 2, 3], at: 9 * 65536 + 5)
      model.write([1, 2, 3], at: 9 * 65536 + 5)
      try chain.discard(at: 65536, count: 65536)
      try chain.close()
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      let verdict = try ReferenceTool.check(folder.file("top"), format: "parallels", folder: folder.path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0)
    }
  }

  /// What a power cut leaves has its mark and leaked clusters, nothing worse: the rest of the suite mends it first.
  @Test func powerCutLeavesNothingWorseThanLeaks() throws {
    for isExtended in [true, false] {
      var small = ParallelsImage.small
      small.isExtended = isExtended
      let store = CrashStore(image(small))
      var random = SeededRandom.fromEnvironment(or: 9)
      let chain = try open(store)
      for number in 0..<30 {
        let offset = UInt64(random.below(31 * 65536))
        switch random.below(4) {
        case 0: try chain.discard(at: offset / 65536 * 65536, count: 65536)
        case 1: try chain.writeZeros(at: offset, count: UInt64(random.below(65536)))
        default: try chain.writeBytes(random.bytes(1 + random.below(60_000)), at: offset)
        }
        if number % 6 == 5 { try chain.flush() }
      }
      try chain.close()
      try store.forEachCrashState(
        cuts: stride(from: 0, through: store.eventCount, by: 3), random: &random, randomCount: 2
      ) { state in
        let header = try ParallelsHeader.read(from: MemoryStore(state.bytes))
        var checker = try ParallelsChecker(header, file: MemoryStore(state.bytes), progress: .none)
        _ = try checker.run()
        let worse = checker.report.findings.filter { !$0.contains("not closed") && !$0.contains("leaked") }
        #expect(worse.isEmpty, "cut after \(state.cut), \(state.story): \(worse)")
      }
    }
  }
}

/// Lines that opening an image has to tell.
private final class Notes: Sendable {
  private let lines = Guarded<[String]>([])
  func add(_ line: String) { lines.withLock { $0.append(line) } }
  var all: [String] { lines.withLock { $0 } }
}
