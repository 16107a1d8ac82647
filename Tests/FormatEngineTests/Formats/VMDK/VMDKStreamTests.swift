import TestSupport
import Testing

@testable import FormatEngine

/// streamOptimized images: what is written where, and what cannot be written.
@Suite struct VMDKStreamTests {
  /// An empty image in memory.
  private static func empty(_ size: UInt64, _ options: [String: String] = [:]) throws -> MemoryStore {
    let store = MemoryStore([])
    var values = OptionValues(VMDKFormat.createOptions)
    try values.set("subformat", to: "streamOptimized")
    for (name, text) in options { try values.set(name, to: text) }
    try VMDKFormat.create(
      on: store,
      CreateRequest(path: "image", virtualSize: size, options: values, references: ReferenceOpener()))
    return store
  }

  private static func chain(_ store: MemoryStore, _ access: FileAccess = .readWrite) throws -> ImageChain {
    try ImageChain.over(store, format: VMDKFormat.self, access: access, path: "image")
  }

  /// A raw disk as an image, by the converter.
  static func packed(_ disk: [UInt8], _ change: (inout ConvertOptions) -> Void = { _ in }) throws -> [UInt8] {
    let store = try empty(UInt64(disk.count))
    let target = try chain(store)
    var options = ConvertOptions()
    options.threadCount = 3
    change(&options)
    try Converter.convert(
      from: [try ImageChain.over(MemoryStore(disk), format: RawFormat.self)], to: target, options)
    try target.close()
    return store.snapshot
  }

  /// 3 MiB: patterns, random bytes, zeros.
  static func disk(_ size: Int = 3 << 20) -> [UInt8] {
    var random = SeededRandom(seed: 21)
    var model = ModelDisk(byteCount: size)
    for place in stride(from: 0, to: size - 100_000, by: 300_000) {
      model.write(place % 600_000 == 0 ? random.bytes(70_000) : random.fill(70_000), at: place)
    }
    return model.bytes
  }

  // MARK: Layout

  /// What a stream has behind its overhead, found by its markers alone.
  struct Walk {
    /// Guest sectors of grains, and the sectors of the file where their markers are.
    var grains: [(guest: UInt64, host: Int)] = []
    /// The sectors of the file where tables and directories begin.
    var tables: [Int] = []
    var directories: [Int] = []
    /// The place of the footer.
    var footer: Int?
    /// Bytes of the file when the end of the stream has come.
    var end: Int?

    init(_ bytes: [UInt8]) throws {
      var position = Int(VMDKImages.number(bytes, at: 64, width: 8)) * 512
      while position + 512 <= bytes.count, end == nil {
        let value = VMDKImages.number(bytes, at: position, width: 8)
        let size = Int(VMDKImages.number(bytes, at: position + 8, width: 4))
        if size > 0 {
          grains.append((value, position / 512))
          position += (12 + size + 511) / 512 * 512
          continue
        }
        let kind = VMDKImages.number(bytes, at: position + 12, width: 4)
        position += 512
        switch kind {
        case 0: end = position
        case 1: tables.append(position / 512)
        case 2: directories.append(position / 512)
        case 3: footer = position
        default: throw TestFailure("Marker \(kind)")
        }
        position += Int(value) * 512
      }
    }
  }

  @Test func streamIsWhatItsMarkersSay() throws {
    // Grains in the first and the third table; none in the second and the last one.
    let size = 130 << 20
    var disk = ModelDisk(byteCount: size)
    var random = SeededRandom(seed: 3)
    for place in [0, 65536 * 3 + 5, 65536 * 511, 70 << 20, (96 << 20) - 100] {
      disk.write(random.bytes(100), at: place)
    }
    let bytes = try Self.packed(disk.bytes)
    #expect(bytes.count % 512 == 0)
    #expect(VMDKImages.number(bytes, at: 4, width: 4) == 3)
    #expect(VMDKImages.number(bytes, at: 8, width: 4) == 0x30001)
    #expect(VMDKImages.number(bytes, at: 48, width: 8) == 0)
    #expect(VMDKImages.number(bytes, at: 56, width: 8) == UInt64.max)
    #expect(VMDKImages.number(bytes, at: 77, width: 2) == 1)
    let walk = try Walk(bytes)
    let numbers: [UInt64] = [0, 3, 511, 1120, 1535]
    #expect(walk.grains.map(\.guest) == numbers.map { $0 * 128 })
    #expect(walk.tables.count == 2 && walk.directories.count == 1 && walk.end == bytes.count)
    let footer = try #require(walk.footer)
    #expect(footer == bytes.count - 1024)
    #expect(Array(bytes[footer..<footer + 56]) == Array(bytes[..<56]))
    let directory = Int(VMDKImages.number(bytes, at: footer + 56, width: 8))
    #expect(directory == walk.directories[0])
    let entries = (0..<5).map { Int(VMDKImages.number(bytes, at: directory * 512 + $0 * 4, width: 4)) }
    #expect(entries == [walk.tables[0], 0, walk.tables[1], 0, 0])
    for (number, grain) in zip(numbers, walk.grains) {
      let table = entries[Int(number / 512)] * 512
      #expect(VMDKImages.number(bytes, at: table + Int(number % 512) * 4, width: 4) == UInt64(grain.host))
    }
    // Tables follow the grains that they describe.
    #expect(walk.tables[0] > walk.grains[2].host && walk.tables[0] < walk.grains[3].host)
    let opened = try VMDKImages.open(bytes).0
    #expect(ModelDisk.firstDifference(try opened.readAll(), disk.bytes) == nil)
    #expect(try VMDKImages.report(bytes) == CheckReport())
  }

  @Test(arguments: [0, 512, 65536, 65536 + 512, 3 << 20, (32 << 20) + 512])
  func anySizeIsPackedAndReadByTheJudge(_ size: Int) throws {
    let disk = Self.disk(size).prefix(size)
    let bytes = try Self.packed(Array(disk))
    #expect(try Walk(bytes).end == bytes.count)
    // Without any bytes it is none of the judge's either.
    guard size > 0 else { return }
    #expect(try VMDKImages.open(bytes).0.readAll() == Array(disk))
    try TemporaryFolder.with { folder in
      let path = try folder.write(bytes, to: "image")
      try ReferenceTool.qemuImg("check", "-f", "vmdk", path)
      #expect(try ReferenceTool.content(of: path, format: "vmdk", in: folder) == Array(disk))
    }
  }

  @Test func emptyImageIsWhole() throws {
    let bytes = try Self.empty(5 * GiB, ["zeroed_grain": "on"]).snapshot
    #expect(VMDKImages.number(bytes, at: 8, width: 4) == 0x30005)
    let walk = try Walk(bytes)
    #expect(walk.grains.isEmpty && walk.tables.isEmpty && walk.end == bytes.count)
    let chain = try VMDKImages.open(bytes).0
    #expect(try chain.extent(at: 0, limit: 5 * GiB).readsAsZeros)
    try TemporaryFolder.with { folder in
      let path = try folder.write(bytes, to: "image")
      try ReferenceTool.qemuImg("check", "-f", "vmdk", path)
    }
  }

  /// Zeros that are to be stored are packed as well, and so are bytes that get larger by it.
  @Test func everythingIsPackedWhereItMustBe() throws {
    var random = SeededRandom(seed: 4)
    let disk = [UInt8](repeating: 0, count: 1 << 20) + random.bytes(1 << 20)
    let bytes = try Self.packed(disk) {
      $0.sparseByteCount = 0
      $0.allowsAnyOrder = true
    }
    let walk = try Walk(bytes)
    #expect(walk.grains.map(\.guest) == (0..<32).map { $0 * 128 })
    #expect(try VMDKImages.open(bytes).0.readAll() == disk)
    let known = try Self.packed(disk) { $0.targetReadsAsZeros = false }
    #expect(try Walk(known).grains.count == 32)
  }

  @Test func imageIsNotLargerThanTheJudges() throws {
    try TemporaryFolder.with { folder in
      // Words, of which the judge's packer makes much.
      var random = SeededRandom(seed: 5)
      let words = (0..<400).map { _ in random.bytes(3 + random.below(6)).map { 97 + $0 % 26 } + [32] }
      var disk: [UInt8] = []
      while disk.count < 4 << 20 { disk += words[random.below(words.count)] }
      disk.removeLast(disk.count - 4 << 20)
      try folder.write(disk, to: "disk")
      try ReferenceTool.qemuImg(
        "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk", "image",
        folder: folder.path)
      #expect(try Self.packed(disk).count <= Files.read(folder.file("image")).count)
    }
  }

  // MARK: What is refused

  @Test func imageIsWrittenOnce() throws {
    let disk = Self.disk()
    let bytes = try Self.packed(disk)
    let (target, store) = try VMDKImages.open(bytes, .readWrite)
    for offset in [0, UInt64(disk.count) - 512] {
      #expect(throws: EngineError.self) {
        try target.writeBytes([UInt8](repeating: 1, count: 512), at: offset)
      }
      #expect(throws: EngineError.self) { try target.writeZeros(at: offset, count: 512) }
    }
    let source = try ImageChain.over(MemoryStore(disk), format: RawFormat.self)
    let error = #expect(throws: EngineError.self) {
      try Converter.convert(from: [source], to: target, ConvertOptions())
    }
    #expect(error?.message.contains("Could not write to allocated cluster for streamOptimized") == true)
    try target.close()
    #expect(store.snapshot == bytes)
  }

  /// An image whose directory is before its grains: the judge's.
  @Test func otherStreamsAreNotBegun() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(
        "image", format: "vmdk", size: 1 << 20, options: ["subformat=streamOptimized"], folder: folder.path)
      let bytes = try Files.read(folder.file("image"))
      let (target, store) = try VMDKImages.open(bytes, .readWrite)
      let source = try ImageChain.over(
        MemoryStore([UInt8](repeating: 1, count: 1 << 20)), format: RawFormat.self)
      #expect(throws: EngineError.self) {
        try Converter.convert(from: [source], to: target, ConvertOptions())
      }
      #expect(store.snapshot == bytes)
    }
  }

  /// What the header at the start says is not what was checked, which is the footer.
  @Test func streamWithAnotherHeaderIsNotBegun() throws {
    let good = try Self.empty(1 << 20).snapshot
    let source = try ImageChain.over(
      MemoryStore([UInt8](repeating: 1, count: 1 << 20)), format: RawFormat.self)
    for (place, width) in [(4, 4), (8, 4), (20, 8), (28, 8), (36, 8), (44, 4), (48, 8), (64, 8)] {
      let most = width == 8 ? UInt64.max : UInt64(UInt32.max)
      let old = VMDKImages.number(good, at: place, width: width)
      for value in [0, 1, 2, 3, 1 << 31, most - 1, most] where value != old {
        var bytes = good
        VMDKImages.put(value, into: &bytes, at: place, width: width)
        // Opening may look at the field, too.
        guard let (target, store) = try? VMDKImages.open(bytes, .readWrite) else { continue }
        #expect(throws: EngineError.self, "\(place) = \(value)") {
          try Converter.convert(from: [source], to: target, ConvertOptions())
        }
        #expect(store.snapshot == bytes, "\(place) = \(value)")
      }
    }
  }

  @Test func grainsComeInOrder() throws {
    let store = try Self.empty(1 << 20)
    let header = try VMDKSparseHeader.read(from: store, at: 0)
    var writer = try VMDKStreamWriter(header, file: store)
    for (offset, isGood) in [(65536, true), (65536, false), (0, false), (131_072, true), (1 << 26, false)] {
      let piece = PackedPiece(guestOffset: UInt64(offset), byteCount: 5)
      let result = Result {
        try unsafe [1, 2, 3, 4, 5 as UInt8].withUnsafeBytes { try unsafe writer.append($0, [piece]) }
      }
      #expect(((try? result.get()) != nil) == isGood, "\(offset)")
    }
  }

  /// Until its last byte is there the image is none; the layer itself says so, too.
  @Test func unfinishedStreamIsNoImage() throws {
    let store = try Self.empty(1 << 20)
    let target = try Self.chain(store)
    let layer = try #require(target.top as? any CompressedWriting)
    let packer = try layer.makePacker()
    let grain = [UInt8](repeating: 9, count: 65536)
    var room = [UInt8](repeating: 0, count: Int(layer.largestPackedUnit))
    let count = try unsafe grain.withUnsafeBytes { source in
      try unsafe room.withUnsafeMutableBytes { try unsafe packer.pack(source, into: $0) }
    }
    let piece = PackedPiece(guestOffset: 65536, byteCount: try #require(count))
    try unsafe room.withUnsafeBytes { bytes in
      try unsafe layer.storeCompressed(
        UnsafeRawBufferPointer(rebasing: bytes[..<piece.byteCount]), pieces: [piece])
    }
    #expect(throws: EngineError.self) { try target.readBytes(at: 0, count: 1) }
    #expect(throws: EngineError.self) { try Self.chain(MemoryStore(store.snapshot)) }
    try layer.finishCompressed()
    try target.flush()
    #expect(try target.readBytes(at: 65536, count: 65536) == grain)
    #expect(try (layer as? any Checkable)?.check(progress: .none) == CheckReport())
    #expect(
      try Self.chain(MemoryStore(store.snapshot), .readOnly).readBytes(at: 65536, count: 65536) == grain)
  }

  // MARK: Damage

  /// Every field of the markers, the footer, the directory and a table at values that cannot be true: what is read is right
  /// or an error, and writing is refused.
  @Test func damagedStreamIsReadOrRefused() throws {
    let disk = Self.disk()
    let good = try Self.packed(disk)
    let walk = try Walk(good)
    let footer = try #require(walk.footer)
    let table = walk.tables[0] * 512
    let directory = walk.directories[0] * 512
    let places =
      [(table, 4), (table + 4, 4), (directory, 4), (table - 512, 8), (table - 504, 4), (table - 500, 4)]
      + [(footer + 8, 4), (footer + 12, 8), (footer + 20, 8), (footer + 44, 4), (footer + 48, 8)]
      + [(footer + 56, 8), (footer + 64, 8), (footer - 512, 8), (footer - 504, 4), (footer - 500, 4)]
      + [(walk.grains[0].host * 512, 8), (walk.grains[0].host * 512 + 8, 4), (footer + 512, 8)]
    let ends = [UInt64(good.count / 512), UInt64(good.count / 512) - 1, UInt64(walk.directories[0])]
    for (place, width) in places {
      let most = width == 8 ? UInt64.max : UInt64(UInt32.max)
      for value in [0, 1, 2, 3, 4, 5, 128, 0x7fff_ffff, most, most - 1, most >> 1] + ends {
        var bytes = good
        VMDKImages.put(value, into: &bytes, at: place, width: width)
        Deadline.within(seconds: 20, "\(place - footer) \(value)") {
          guard let (chain, store) = try? VMDKImages.open(bytes, .readWrite) else { return }
          for offset in stride(from: 0, to: UInt64(min(disk.count, Int(chain.virtualSize))), by: 65536) {
            _ = try? chain.readBytes(at: offset, count: 512)
          }
          _ = try? VMDKImages.report(bytes)
          // Without its mark of compression it is an image like others.
          let isWritten = (try? chain.writeBytes([1], at: 0)) != nil
          if place != footer + 77 { #expect(!isWritten && store.snapshot == bytes) }
        }
      }
    }
  }

  @Test func directoryBeyondTheEndIsAnError() throws {
    let good = try Self.packed(Self.disk())
    let footer = try #require(try Walk(good).footer)
    var bytes = good
    VMDKImages.put(UInt64(good.count / 512), into: &bytes, at: footer + 56, width: 8)
    #expect(throws: EngineError.self) { try VMDKImages.open(bytes).0.readBytes(at: 0, count: 1) }
    #expect(try VMDKImages.report(bytes).corruptions > 0)
  }
}
