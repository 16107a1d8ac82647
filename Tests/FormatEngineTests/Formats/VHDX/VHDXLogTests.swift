import TestSupport
import Testing

@testable import FormatEngine

private let mebibyte = 1 << 20

/// An entry of a log as it is put together for tests.
struct VHDXTestEntry {
  enum Change {
    case zeros(at: UInt64, count: UInt64)
    case page(at: UInt64, of: UInt8)
  }

  var number: UInt64
  var changes: [Change]
  /// In the log, in bytes.
  var start: Int
  var tail: Int
  var guid = VHDXLogTests.guid
  var flushed: UInt64
  var last: UInt64

  func serialised() throws -> [UInt8] {
    let pages = changes.count { if case .page = $0 { true } else { false } }
    var head = VHDXLogEntryHeader(
      length: 0, tail: UInt32(tail), sequenceNumber: number, descriptorCount: UInt32(changes.count),
      logGuid: guid, flushedFileOffset: flushed, lastFileOffset: last)
    head.length = (head.descriptorSectors + UInt32(pages)) * 4096
    var (entry, data): ([UInt8], [UInt8]) = ([], [])
    head.append(to: &entry)
    for change in changes {
      switch change {
      case .zeros(let offset, let count):
        VHDXLogDescriptor(content: .zeros(count), hostOffset: offset, sequenceNumber: number)
          .append(to: &entry)
      case .page(let offset, let byte):
        try VHDXLogDataSector.append(
          [UInt8](repeating: byte, count: 4096), hostOffset: offset, sequenceNumber: number, to: &data
        ).append(to: &entry)
      }
    }
    entry.pad(toMultipleOf: 4096)
    entry += data
    VHDXChecksum.set(in: &entry)
    return entry
  }
}

@Suite struct VHDXLogTests {
  static let guid = VHDXGuid(1, 2, 3, 4)

  /// A fixed image full of sevens whose log has these entries.
  private static func image(_ entries: [VHDXTestEntry]) throws -> VHDXBytes {
    var image = try VHDXBytes(isFixed: true)
    for index in VHDXBytes.blocks..<image.bytes.count { image.bytes[index] = 7 }
    for entry in entries {
      for (index, byte) in try entry.serialised().enumerated() {
        image.bytes[mebibyte + (entry.start + index) % mebibyte] = byte
      }
    }
    var field: [UInt8] = []
    guid.append(to: &field)
    let copy = VHDXBytes(field)
    image.setHeader(48, to: copy.number(at: 0))
    image.setHeader(56, to: copy.number(at: 8))
    return image
  }

  private static let end = UInt64(7 * mebibyte)
  private static let blocks = UInt64(VHDXBytes.blocks)

  private static func entry(
    _ number: UInt64, at start: Int, tail: Int? = nil, _ changes: [VHDXTestEntry.Change],
    flushed: UInt64 = end, last: UInt64 = end
  ) -> VHDXTestEntry {
    VHDXTestEntry(
      number: number, changes: changes, start: start, tail: tail ?? start, flushed: flushed, last: last)
  }

  /// In memory for readers, whose file stays as it is; in the file for writers. Both read the same.
  private static func expectReplayed(_ image: VHDXBytes, _ expected: ModelDisk, _ what: String) throws {
    let store = MemoryStore(image.bytes)
    let reader = try ImageChain.over(store, format: VHDXFormat.self)
    #expect(ModelDisk.firstDifference(try reader.readAll(), expected.bytes) == nil, "\(what), in memory")
    let parts = try stride(from: 0, to: expected.byteCount, by: 5000).flatMap {
      try reader.readBytes(at: UInt64($0), count: min(5000, expected.byteCount - $0))
    }
    #expect(ModelDisk.firstDifference(parts, expected.bytes) == nil, "\(what), in memory, in parts")
    #expect(store.snapshot == image.bytes)
    let writer = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    #expect(ModelDisk.firstDifference(try writer.readAll(), expected.bytes) == nil, "\(what), in the file")
    try writer.close()
    #expect(try !VHDXBytes(store.snapshot).header.hasLog)
    let again = try ImageChain.over(store, format: VHDXFormat.self)
    #expect(ModelDisk.firstDifference(try again.readAll(), expected.bytes) == nil, "\(what), afterwards")
  }

  private static func full() -> ModelDisk { ModelDisk([UInt8](repeating: 7, count: 3 * mebibyte)) }

  /// Pages and zeros over each other, in one entry and in several: the newest counts.
  @Test func laterChangesCount() throws {
    let b = Self.blocks
    let image = try Self.image([
      Self.entry(
        5, at: 0, [.page(at: b, of: 1), .page(at: b + 4096, of: 2), .zeros(at: b + 8192, count: 65536)]),
      Self.entry(6, at: 12288, tail: 0, [.zeros(at: b + 4096, count: 8192), .page(at: b + 16384, of: 3)]),
    ])
    var model = Self.full()
    model.write([UInt8](repeating: 1, count: 4096), at: 0)
    model.writeZeros(at: 4096, count: 4096 + 65536)
    model.write([UInt8](repeating: 3, count: 4096), at: 16384)
    try Self.expectReplayed(image, model, "two entries")
  }

  /// Only what the last entry names as its tail: earlier entries are done with.
  @Test func entriesBeforeTheTailAreLeft() throws {
    let b = Self.blocks
    let image = try Self.image([
      Self.entry(5, at: 0, [.page(at: b, of: 1)]),
      Self.entry(6, at: 8192, tail: 8192, [.page(at: b + 4096, of: 2)]),
      Self.entry(7, at: 16384, tail: 8192, [.page(at: b + 8192, of: 3)]),
    ])
    var model = Self.full()
    model.write([UInt8](repeating: 2, count: 4096), at: 4096)
    model.write([UInt8](repeating: 3, count: 4096), at: 8192)
    try Self.expectReplayed(image, model, "tail")
  }

  /// Around the end of the log, with an older lap in front and a torn entry behind.
  @Test func logGoesAround() throws {
    let b = Self.blocks
    let start = mebibyte - 8192
    var torn = Self.entry(11, at: 4096, tail: start, [.page(at: b + 8192, of: 4)])
    torn.guid = Self.guid
    var image = try Self.image([
      Self.entry(3, at: 65536, [.page(at: b + 12288, of: 9)]),
      Self.entry(10, at: start, [.page(at: b, of: 1), .page(at: b + 4096, of: 2)]), torn,
    ])
    image.bytes[mebibyte + 4096 + 5000] ^= 1
    var model = Self.full()
    model.write([UInt8](repeating: 1, count: 4096), at: 0)
    model.write([UInt8](repeating: 2, count: 4096), at: 4096)
    try Self.expectReplayed(image, model, "around")
  }

  @Test func impossibleLogIsRefused() throws {
    let b = Self.blocks
    func expect(_ words: String, _ entries: [VHDXTestEntry]) throws {
      let image = try Self.image(entries)
      #expect(
        image.refusal()?.message.contains(words) == true, "\(words): \(image.refusal()?.message ?? "-")")
      let store = MemoryStore(image.bytes)
      #expect(throws: EngineError.self) {
        try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
      }
      #expect(store.snapshot == image.bytes, "\(words)")
    }
    try expect("no valid entry", [])
    var foreign = Self.entry(1, at: 0, [.page(at: b, of: 1)])
    foreign.guid = try .new(.unique, for: "a test")
    try expect("no valid entry", [foreign])
    try expect("no valid entry", [Self.entry(2, at: 0, tail: 4096, [.page(at: b, of: 1)])])
    try expect("shorter", [Self.entry(1, at: 0, [.page(at: b, of: 1)], flushed: Self.end + 4096)])
    try expect("too long", [Self.entry(1, at: 0, [.page(at: b, of: 1)], last: 1 << 63)])
    for place in [0, 64 << 10, 128 << 10, 1 << 20, (2 << 20) - 4096, Self.end, 1 << 62, 100] as [UInt64] {
      try expect("what it cannot", [Self.entry(1, at: 0, [.page(at: place, of: 1)])])
    }
    try expect("what it cannot", [Self.entry(1, at: 0, [.zeros(at: b, count: 1 << 40)])])
    try expect("out of range", [Self.entry(1, at: 0, [.zeros(at: b, count: .max)])])
    try expect("what it cannot", [Self.entry(1, at: 0, [.zeros(at: 2 << 20 - 4096, count: 100)])])
  }

  /// Any damage to the only entry makes it none.
  @Test func damagedEntryIsNone() throws {
    let good = try Self.image([
      Self.entry(1, at: 0, [.page(at: Self.blocks, of: 1), .zeros(at: Self.blocks, count: 4096)])
    ])
    var random = SeededRandom.fromEnvironment(or: 62)
    for offset in Array(0..<64) + (0..<60).map({ _ in random.below(8192) }) {
      var image = good
      image.bytes[mebibyte + offset] ^= UInt8(1 << random.below(8))
      #expect(image.refusal()?.code == .corrupt, "byte \(offset)")
    }
  }

  /// Thousands of descriptors in one MiB, all over each other: bounded time, and the same as one after the other.
  @Test func manyOverlappingChangesAreSortedOut() throws {
    var random = SeededRandom.fromEnvironment(or: 63)
    var model = Self.full()
    let changes: [VHDXTestEntry.Change] = (0..<6000).map { number in
      let page = random.below(767)
      if number % 60 == 0 {
        model.write([UInt8](repeating: UInt8(truncatingIfNeeded: number / 60), count: 4096), at: page * 4096)
        return .page(at: Self.blocks + UInt64(page * 4096), of: UInt8(truncatingIfNeeded: number / 60))
      }
      let count = min(1 + random.below(2), 768 - page)
      model.writeZeros(at: page * 4096, count: count * 4096)
      return .zeros(at: Self.blocks + UInt64(page * 4096), count: UInt64(count * 4096))
    }
    try Self.expectReplayed(try Self.image([Self.entry(1, at: 0, changes)]), model, "many")
  }

  /// Entries that claim to reach around the whole log, in every sector of it.
  @Test func entriesInEntriesCostNoMoreThanTheyMay() throws {
    var image = try Self.image([])
    for start in stride(from: 0, to: mebibyte, by: 4096) {
      var head = VHDXLogEntryHeader(
        length: UInt32(mebibyte), tail: 0, sequenceNumber: 1, descriptorCount: 0, logGuid: Self.guid,
        flushedFileOffset: 0, lastFileOffset: 0)
      head.checksum = 1
      var bytes: [UInt8] = []
      head.append(to: &bytes)
      image.bytes.replaceSubrange(mebibyte + start..<mebibyte + start + 64, with: bytes)
    }
    Deadline.within(seconds: 20, "entries in entries") { #expect(image.refusal()?.code == .corrupt) }
  }

  /// More flushes than the log has room for, each in a state that a reader and a writer can open.
  @Test func spaceOfTheLogIsUsedAgain() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("x.vhdx")
      try VHDXBytes.new(8 * mebibyte, mebibyte, 512).write(
        to: try FileStore.create(path, cache: .unflushed))
      let chain = try VHDXLayerTests.open(path, .readWrite)
      // Two sectors of the log each time: more than two times around.
      for round in 0..<300 {
        let offset = UInt64(round % 8 * mebibyte)
        if round % 16 >= 8 { try chain.writeZeros(at: offset, count: UInt64(mebibyte)) }
        if round % 16 < 8 { try chain.writeBytes([UInt8(1 + round % 251)], at: offset) }
        try chain.flush()
        guard round % 37 == 0 else { continue }
        let now = MemoryStore(try Files.read(path))
        for access in [FileAccess.readOnly, .readWrite] {
          let other = try ImageChain.over(now, format: VHDXFormat.self, access: access)
          #expect(try other.readAll() == chain.readAll(), "\(round)")
        }
      }
      try chain.close()
      let verdict = try ReferenceTool.check(path, format: "vhdx")
      #expect(verdict.corruptions == 0, "\(verdict.text)")
    }
  }

  /// Many entries in one session without a flush of the caller's: the log takes them in turns.
  @Test func moreBATSectorsThanOneEntryHolds() throws {
    try TemporaryFolder.with { folder in
      let file = try FileStore.create(folder.file("x.vhdx"), cache: .unflushed)
      try VHDXBytes.new(200 << 30, mebibyte, 512).write(to: file)
      file.unlock()
      let chain = try VHDXLayerTests.open(folder.file("x.vhdx"), .readWrite)
      // An entry in each page of the BAT.
      for page in 0..<300 { try chain.writeZeros(at: UInt64(page * 512 * mebibyte), count: UInt64(mebibyte)) }
      for page in 0..<300 {
        try chain.writeBytes([UInt8(page & 0xff)], at: UInt64(page * 512 * mebibyte + 7))
      }
      try chain.close()
      let again = try VHDXLayerTests.open(folder.file("x.vhdx"))
      for page in 0..<300 {
        #expect(try again.readBytes(at: UInt64(page * 512 * mebibyte + 7), count: 1) == [UInt8(page & 0xff)])
      }
      let verdict = try ReferenceTool.check(folder.file("x.vhdx"), format: "vhdx")
      #expect(verdict.corruptions == 0, "\(verdict.text)")
    }
  }

  /// Entries on both sides of the ends of pages, and these pages, in any order, with flushes in between: what was flushed is read by
  /// who finds the file as it is then, with its log not played back.
  @Test func entriesChangeInAnyOrder() throws {
    var random = SeededRandom.fromEnvironment(or: 64)
    let store = SparseStore()
    try VHDXBytes.new(200 << 30, mebibyte, 512).write(to: store)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    // In every 4097th entry stands the bitmap of the 4096 blocks before.
    let entries = (0..<Effort.rounds(60)).flatMap { pair in
      [510, 511, 512, 513].map { pair % 190 * 1024 + $0 }
    }
    .filter { $0 % 4097 != 4096 }
    var (written, flushed): ([Int: UInt8], [Int: UInt8]) = ([:], [:])
    for entry in Set(entries).sorted().shuffled(using: &random) {
      let (block, byte) = (entry - entry / 4097, UInt8(1 + random.below(255)))
      try chain.writeBytes([byte], at: UInt64(block * mebibyte + 7))
      written[block] = byte
      if random.oneIn(8) {
        try chain.flush()
        flushed = written
      }
      guard random.oneIn(20) else { continue }
      let copy = try ImageChain.over(store.copy(), format: VHDXFormat.self)
      for (block, byte) in flushed {
        let found = try copy.readBytes(at: UInt64(block * mebibyte + 7), count: 1)
        #expect(found == [byte], "block \(block), \(random)")
      }
    }
    try chain.flush()
    // Played back in the file.
    let later = store.copy()
    try ImageChain.over(later, format: VHDXFormat.self, access: .readWrite).close()
    try chain.close()
    for store in [store, later] {
      let now = try ImageChain.over(store, format: VHDXFormat.self)
      for (block, byte) in written {
        let found = try now.readBytes(at: UInt64(block * mebibyte + 6), count: 3)
        #expect(found == [0, byte, 0], "block \(block), \(random)")
      }
      let report = try #require(now.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(report.findings.prefix(3))")
    }
  }

  /// A file that is longer than any disk needs would cost memory for the map of its room.
  @Test func logDoesNotMakeTheFileHuge() throws {
    let length = UInt64(try VHDXBytes(isFixed: true).bytes.count)
    for last in [257 * TiB, 1 << 62, UInt64.max] {
      let entry = VHDXTestEntry(number: 1, changes: [], start: 0, tail: 0, flushed: length, last: last)
      #expect(try Self.image([entry]).refusal() != nil)
    }
  }
}
