import TestSupport
import Testing

@testable import FormatEngine

@Suite struct DMGTests {
  private typealias Kind = DMGImage.Kind

  /// Two tables: zeros, a raw chunk, a packed one; the second table has another packed one.
  private static func small(_ change: (inout DMGImage) -> Void = { _ in }) throws -> BuiltImage {
    var image = DMGImage()
    var random = SeededRandom(seed: 3)
    let (raw, text, more) = (random.bytes(8 * 512), PackedSamples.text(40 * 512), random.fill(30 * 512))
    image.tables.append(.init(firstSector: 0))
    image.add(Kind.comment, sectors: 0)
    image.add(Kind.zeros, sectors: 10, unpacked: [UInt8](repeating: 0, count: 10 * 512))
    image.add(Kind.ignored, sectors: 5)
    image.add(Kind.raw, raw, sectors: 8, unpacked: raw)
    image.add(Kind.zlib, try ZlibText.pack(text), sectors: 40, unpacked: text)
    image.add(Kind.terminator, sectors: 0)
    image.tables.append(.init(firstSector: 63))
    image.add(Kind.zlib, try ZlibText.pack(more), sectors: 30, unpacked: more)
    image.add(Kind.terminator, sectors: 0)
    change(&image)
    return BuiltImage(file: image.file, disk: [UInt8](repeating: 0, count: 15 * 512) + raw + text + more)
  }

  private static func open(_ file: [UInt8]) throws(EngineError) -> ImageChain {
    try ImageChain.over(MemoryStore(file), format: DMGFormat.self)
  }

  private func check(_ file: [UInt8]) throws -> CheckReport {
    try #require(try Self.open(file).top as? any Checkable).check(progress: .none)
  }

  @Test func chunksAreExtents() throws {
    let built = try Self.small()
    let chain = try Self.open(built.file)
    let extents = try chain.allExtents()
    #expect(extents.map(\.located.extent.source) == [.zeros, .stored, .compressed, .compressed])
    #expect(extents.map(\.start) == [0, 7680, 11776, 32256] as [UInt64])
    let unit: Range<UInt64> = 11776..<32256
    #expect(try chain.top.packedUnit(at: 25603) == unit)
    #expect(try chain.readAll() == built.disk)
    #expect(try chain.readBytes(at: 62 * 512 + 500, count: 100) == Array(built.disk[32244..<32344]))
    #expect(try check(built.file) == CheckReport())
  }

  @Test(arguments: [0, 1, 100, 511])
  func trailerNeedNotBeTheEnd(_ rest: Int) throws {
    let built = try Self.small { image in
      image.trailerPlace = .beforeRest(rest)
      // Whole sectors: qemu-img counts from the end of the last one.
      image.dataFork += [UInt8](repeating: 0, count: (512 - image.file.count % 512) % 512)
    }
    #expect(try Self.open(built.file).readAll() == built.disk)
  }

  @Test func trailerMayBeTheStart() throws {
    let built = try Self.small { $0.trailerPlace = .start }
    #expect(try Self.open(built.file).readAll() == built.disk)
    #expect(try check(built.file) == CheckReport())
  }

  @Test func mapMayBeInTheResourceFork() throws {
    let built = try Self.small { $0.mapPlace = .resourceFork }
    #expect(try Self.open(built.file).readAll() == built.disk)
  }

  @Test func tablesComeInAnyOrder() throws {
    let built = try Self.small { $0.tables.swapAt(0, 1) }
    #expect(try Self.open(built.file).readAll() == built.disk)
    #expect(try check(built.file) == CheckReport())
  }

  /// The disk that the trailer tells may end inside of a packed chunk.
  @Test func diskMayEndInsideOfAChunk() throws {
    let built = try Self.small { $0.sectorCount = 70 }
    let chain = try Self.open(built.file)
    #expect(chain.virtualSize == 70 * 512)
    #expect(try chain.readAll() == Array(built.disk.prefix(70 * 512)))
    #expect(try chain.readBytes(at: 35328, count: 512) == Array(built.disk[35328..<35840]))
  }

  /// Chunks of 3 MiB, several of which the cache of unpacked ones holds: small reads unpack each once.
  @Test func largeChunksAreUnpackedOnceForSmallReads() throws {
    var image = DMGImage()
    image.tables.append(.init(firstSector: 0))
    let plain = PackedSamples.text(3 << 20)
    image.add(Kind.zlib, try ZlibText.pack(plain), sectors: plain.count / 512, unpacked: plain)
    let store = FaultStore(MemoryStore(image.file))
    let chain = try ImageChain.over(store, format: DMGFormat.self)
    store.arm(failing: nil)
    for offset in stride(from: 0, to: plain.count, by: 100_000) {
      let count = min(5000, plain.count - offset)
      #expect(try chain.readBytes(at: UInt64(offset), count: count) == Array(plain[offset..<offset + count]))
    }
    #expect(store.callCount == 1)
  }

  @Test(arguments: ["packed", "raw", "past the end", "unknown kind", "gap"])
  func damageIsAnErrorOfItsChunkOnly(_ what: String) throws {
    let built = try Self.small { image in
      switch what {
      case "packed": image.dataFork[8 * 512 + 30] ^= 0xff
      case "raw": image.tables[0].chunks[3].byteCount -= 1
      case "past the end": image.tables[0].chunks[4].offset = 1 << 40
      case "unknown kind": image.tables[0].chunks[4].kind = 0x8000_0009
      default: image.tables[0].chunks.remove(at: 4)
      }
    }
    let chain = try Self.open(built.file)
    let damaged = what == "raw" ? 15..<23 : 23..<63
    for sector in 0..<93 {
      let bytes = try? chain.readBytes(at: UInt64(sector) * 512, count: 512)
      let expected: [UInt8]? =
        damaged.contains(sector) ? nil : Array(built.disk[sector * 512..<(sector + 1) * 512])
      #expect(bytes == expected)
    }
    let report = try check(built.file)
    #expect(report.corruptions >= 1 && report.findings.count == Int(report.corruptions))
  }

  @Test func wrongSumsAreFound() throws {
    #expect(try check(try Self.small { $0.tables[1].checksum ^= 1 }.file).findings.count == 1)
    var bytes = try Self.small().file
    for (offset, words) in [(88, "data fork"), (360, "block tables")] {
      let place = bytes.count - 512 + offset
      bytes[place] ^= 1
      let report = try check(bytes)
      #expect(report.corruptions == 1 && report.findings[0].contains(words))
      bytes[place] ^= 1
    }
    #expect(try check(bytes) == CheckReport())
  }

  @Test func probingIsByTheName() throws {
    func score(_ bytes: [UInt8], _ path: String) throws -> ProbeScore {
      try bytes.parsed { (span) throws(EngineError) in DMGFormat.probe(span, path: path) }
    }
    let zeros = [UInt8](repeating: 0, count: 2048)
    #expect(try score(zeros, "disk.dmg") == ProbeScore(2))
    #expect(try score(zeros, "disk.raw") == ProbeScore.none)
    #expect(try score(Self.small().file, "disk.img") == ProbeScore.none)
    #expect(try score(Array("sprs".utf8), "disk.sparseimage") == ProbeScore(2))
    #expect(try score(Array("sprs".utf8), "disk.raw") == ProbeScore.none)
    #expect(try score(zeros, "disk.sparseimage") == ProbeScore.none)
    #expect(try score([], "dmg") == ProbeScore.none)
  }

  @Test(arguments: [
    ("encrcdsa", "", "an encrypted disk image"), ("", "cdsaencr", "an encrypted disk image"),
    ("sprs", "", "a sparse disk image"),
  ])
  func relativesAreNamed(_ head: String, _ tail: String, _ words: String) throws {
    let bytes = Array(head.utf8) + [UInt8](repeating: 0, count: 4096) + Array(tail.utf8)
    #expect(
      HostileImage.refusal(bytes, as: DMGFormat.self) == "The file is \(words), which is not supported")
  }

  @Test func writingIsRefused() throws {
    #expect(throws: EngineError(.readOnly, "Image is read-only")) {
      try ImageChain.over(MemoryStore(try Self.small().file), format: DMGFormat.self, access: .readWrite)
    }
  }
}

/// UDIF images that are made to do harm.
@Suite struct DMGHostileTests {
  private typealias Kind = DMGImage.Kind

  private static func image(_ chunks: [DMGImage.Chunk] = [], _ change: (inout DMGImage) -> Void = { _ in })
    -> [UInt8]
  {
    var image = DMGImage()
    image.dataFork = PackedSamples.text(4096)
    image.sectorCount = 64
    image.tables.append(.init(firstSector: 0, chunks: chunks))
    change(&image)
    return image.file
  }

  private static func chunk(
    _ kind: UInt32, _ sector: UInt64, _ count: UInt64, _ offset: UInt64 = 0, _ bytes: UInt64 = 4096
  ) -> DMGImage.Chunk {
    .init(kind: kind, sector: sector, sectorCount: count, offset: offset, byteCount: bytes)
  }

  @Test(arguments: [
    (chunk(Kind.zlib, 0, 131_073), "sector count 131073 for chunk 0 is larger than max (131072)"),
    (chunk(Kind.lzfse, 0, .max / 2), "Chunk 0 of block table 0 is out of range"),
    (chunk(Kind.bzip2, 0, 8, 0, 67_108_865), "length 67108865 for chunk 0 is larger than max (67108864)"),
    (chunk(Kind.raw, .max, 8), "Chunk 0 of block table 0 is out of range"),
    (chunk(Kind.raw, 1 << 55, 8), "Chunk 0 of block table 0 is out of range"),
    (chunk(Kind.raw, 0, 8, .max), "Chunk 0 of block table 0 is out of range"),
    (chunk(Kind.zeros, 0, .max), "Chunk 0 of block table 0 is out of range"),
    (chunk(Kind.zeros, 1, .max), "Chunk 0 of block table 0 is out of range"),
    (chunk(Kind.raw, 0, 8, 1, .max), "Chunk 0 of block table 0 is out of range"),
  ])
  func impossibleChunkIsRefusedInWords(_ chunk: DMGImage.Chunk, _ words: String) {
    #expect(HostileImage.refusal(Self.image([chunk]), as: DMGFormat.self) == words)
  }

  @Test func overlappingChunksAreRefused() {
    let overlapping = [Self.chunk(Kind.zeros, 0, 10), Self.chunk(Kind.raw, 9, 8)]
    for chunks in [overlapping, overlapping.reversed()] {
      #expect(
        HostileImage.refusal(Self.image(chunks), as: DMGFormat.self)
          == "Two chunks of the image are for sector 9")
    }
  }

  @Test func hugeZerosAreReadAndCheckedAtOnce() throws {
    let file = Self.image([Self.chunk(Kind.zeros, 0, (1 << 54) - 1)]) { $0.sectorCount = (1 << 54) - 1 }
    let chain = try ImageChain.over(MemoryStore(file), format: DMGFormat.self)
    #expect(try chain.allExtents().count == 1)
    let layer = try #require(chain.top as? any Checkable)
    let report = try Deadline.within(seconds: 5, "huge zeros") { try layer.check(progress: .none) }
    #expect(report.corruptions == 1 && report.findings[0].contains("block table 0"))
  }

  @Test func emptyTablesAndEarlyTerminatorsHaveNoSectors() throws {
    for chunks in [[], [Self.chunk(Kind.terminator, 0, 0), Self.chunk(Kind.raw, 0, 8)]] {
      let chain = try ImageChain.over(MemoryStore(Self.image(chunks)), format: DMGFormat.self)
      #expect(throws: EngineError.self) { try chain.readBytes(at: 0, count: 512) }
      #expect(throws: EngineError.self) { try chain.extent(at: 32767, limit: 1) }
    }
  }

  @Test(arguments: [2, 0x0666_6666, UInt32.max])
  func tableWithMoreChunksThanBytesIsRefused(_ count: UInt32) {
    let file = Self.image([Self.chunk(Kind.raw, 0, 8)]) { $0.tables[0].claimedCount = count }
    #expect(
      HostileImage.refusal(file, as: DMGFormat.self) == "Block table 0 has no room for its \(count) chunks")
  }

  @Test(arguments: [
    "", "no list", "<plist/>", "<plist><dict><key>resource-fork</key></dict></plist>",
    "<plist><dict><key>resource-fork</key><dict><key>blkx</key><array/></dict></dict></plist>",
    list("<dict><key>Data</key><data>!!!</data></dict>"), list("<dict><key>Data</key></dict>"),
    list("<dict/>"), list("<dict><key>Data</key><data>bWlzaA==</data></dict>"), list("<data>bWlzaA==</data>"),
    String(repeating: "<dict>", count: 10_000) + String(repeating: "</dict>", count: 10_000),
  ])
  func damagedListsAreRefused(_ list: String) {
    let file = Self.image { $0.propertyList = Array(list.utf8) }
    #expect(HostileImage.refusal(file, as: DMGFormat.self) != nil)
  }

  private static func list(_ tables: String) -> String {
    "<plist><dict><key>resource-fork</key><dict><key>blkx</key><array>\(tables)</array></dict></dict></plist>"
  }

  @Test(arguments: [false, true])
  func anyNumberInTheTrailerIsReadOrRefused(_ isFork: Bool) throws {
    var random = SeededRandom(seed: 8)
    let good = try DMGImage.random(
      packed: Kind.zlib, mapPlace: isFork ? .resourceFork : .propertyList, isJudged: true, &random
    ) { try ZlibText.pack($0) }.file
    let start = good.count - 512
    for (name, offset) in [
      ("data fork offset", 24), ("data fork size", 32), ("resource fork offset", 40),
      ("resource fork size", 48), ("segments", 56), ("list offset", 216), ("list size", 224),
      ("sectors", 492),
    ] {
      HostileImage.use(
        good, as: DMGFormat.self,
        HeaderField(
          name: name, offset: start + offset, width: 8,
          limits: [512, 64 << 20, UInt64(start), UInt64(good.count), 1 << 54, 1 << 55, 1 << 63]))
    }
  }

  /// Every number of the resource fork's own tables, and of a block table.
  @Test func anyNumberInTheMapIsReadOrRefused() throws {
    let file = Self.image([Self.chunk(Kind.zlib, 0, 8), Self.chunk(Kind.zeros, 8, 56)]) {
      $0.mapPlace = .resourceFork
    }
    let fork = 4096
    let table = fork + 256 + 4
    let map = table + 204 + 80
    let places: [(Int, Int)] = [
      (fork, 4), (fork + 4, 4), (fork + 256, 4), (map + 24, 2), (map + 28, 2), (map + 34, 2), (map + 36, 2),
      (map + 42, 4), (table + 8, 8), (table + 16, 8), (table + 24, 8), (table + 200, 4), (table + 204, 4),
      (table + 212, 8), (table + 220, 8), (table + 228, 8), (table + 236, 8),
    ]
    for (offset, width) in places {
      HostileImage.use(
        file, as: DMGFormat.self,
        HeaderField(name: "byte \(offset)", offset: offset, width: width, limits: [8, 131_072, 1 << 26]))
    }
  }

  @Test(arguments: [Kind.zlib, Kind.bzip2, Kind.lzma, Kind.adc])
  func aBombUnpacksToItsSectorsAtMost(_ kind: UInt32) throws {
    let zeros = [UInt8](repeating: 0, count: 16 << 20)
    let packed: [UInt8] =
      switch kind {
      case Kind.zlib: try ZlibText.pack(zeros)
      case Kind.bzip2: try PackedSamples.bzip2(zeros)
      case Kind.lzma: try PackedSamples.xz(zeros, preset: 0)
      default: PackedSamples.adc(zeros)
      }
    var image = DMGImage()
    image.tables.append(.init(firstSector: 0))
    image.add(kind, packed, sectors: 8)
    let chain = try ImageChain.over(MemoryStore(image.file), format: DMGFormat.self)
    #expect(throws: EngineError.self) { try chain.readAll() }
  }

  /// A few bytes that are listed over and over would fill the memory.
  @Test func resourcesShareNoBytes() throws {
    let resource = [UInt8](repeating: 1, count: 1000)
    let good = DMGImage.resourceFork([resource, resource])
    #expect(try DMGResourceFork.resources("blkx", in: good) == [resource, resource])
    // One resource, and four entries for it.
    var all = DMGImage.resourceFork([resource])
    let count = all.count - 12 - 4
    all.replaceSubrange(count..<count + 2, with: [0, 3])
    for _ in 0..<3 { all += all.suffix(12) }
    #expect(throws: EngineError.self) { try DMGResourceFork.resources("blkx", in: all) }
  }

  /// So would millions of tables of one byte each.
  @Test func resourcesAreNotWithoutNumber() throws {
    func fork(_ count: Int) -> [UInt8] {
      var map = [UInt8](repeating: 0, count: 24)
      for number in [28, 0, 1] { map.append(bigEndian: UInt16(number)) }
      // The same list for two types of one name.
      for _ in 0..<2 {
        map += Array("blkx".utf8)
        map.append(bigEndian: UInt16(count - 1))
        map.append(bigEndian: UInt16(18))
      }
      map += [UInt8](repeating: 0, count: 12 * count)
      var fork: [UInt8] = []
      for number in [16, 21, 5, map.count] { fork.append(bigEndian: UInt32(number)) }
      return fork + [0, 0, 0, 1, 7] + map
    }
    #expect(try DMGResourceFork.resources("blkx", in: fork(32_768)).count == 65_536)
    #expect {
      try DMGResourceFork.resources("blkx", in: fork(32_769))
    } throws: { ($0 as? EngineError)?.code == .tooLarge }
  }
}
