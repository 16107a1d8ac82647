import TestSupport
import Testing

@testable import FormatEngine

/// What a check finds and a repair mends. The judge's check finds nothing afterwards.
@Suite struct ParallelsRepairTests {
  struct Damage: Sendable, CustomTestStringConvertible {
    var name: String
    /// Without "ERROR".
    var findings: [String]
    var corruptions: UInt64 = 0
    var leaks: UInt64 = 0
    /// Guest clusters that read as zeros when it is mended.
    var lost: [Int] = []
    var change: @Sendable (inout [UInt8], ParallelsImage) -> Void

    var testDescription: String { name }
  }

  /// An entry that leads to a cluster of the data area.
  private static func entry(_ place: Int, _ image: ParallelsImage) -> UInt32 {
    let host = image.dataOffset + place * image.clusterSize
    return UInt32(host / (image.isExtended ? image.clusterSize : 512))
  }

  static let damages = [
    Damage(name: "nothing", findings: []) { _, _ in },
    Damage(name: "in use", findings: ["image was not closed correctly"], corruptions: 1) { bytes, _ in
      bytes.put(littleEndian: ParallelsHeader.inUseMark, at: 44)
    },
    Damage(name: "no data offset", findings: ["data_off field has incorrect value"], corruptions: 1) {
      bytes, _ in
      bytes.put(littleEndian: UInt32.max, at: 48)
    },
    Damage(
      name: "data offset inside of the BAT", findings: ["data_off field has incorrect value"], corruptions: 1
    ) {
      bytes, _ in bytes.put(littleEndian: UInt32(1) << 31 | 1, at: 48)
    },
    Damage(
      name: "at the end of the file", findings: ["cluster 0 is outside image"], corruptions: 1, lost: [0]
    ) {
      bytes, image in bytes.put(littleEndian: entry(image.storedCount, image), at: 64)
    },
    Damage(
      name: "far outside, and right behind the BAT",
      findings: ["cluster 1 is outside image", "cluster 2 is outside image"],
      corruptions: 2, lost: [1]
    ) { bytes, image in
      bytes.put(littleEndian: UInt32.max, at: 68)
      bytes.put(
        littleEndian: UInt32(image.isExtended ? 0 : 1) &+ (image.isExtended ? UInt32.max - 1 : 0), at: 72)
    },
    Damage(
      name: "three of one cluster",
      findings: ["duplicate offset in BAT entry 1", "duplicate offset in BAT entry 7"], corruptions: 2
    ) { bytes, image in
      bytes.put(littleEndian: entry(2, image), at: 68)
      bytes.put(littleEndian: entry(2, image), at: 64 + 28)
    },
    Damage(name: "room at the end", findings: ["space leaked at the end of the image 100352"], leaks: 0) {
      bytes, image in
      bytes += [UInt8](repeating: 5, count: 100_000)
    },
  ]

  @Test(arguments: damages, [true, false])
  func damageIsFoundAndMended(_ damage: Damage, _ isExtended: Bool) throws {
    var random = SeededRandom(seed: 8)
    var image = ParallelsImage.small
    image.isExtended = isExtended
    var bytes = image.build(&random)
    var expected = image.disk(bytes)
    if damage.name.hasPrefix("three") {
      let copy = Array(expected[0..<65536])
      for index in [1, 7] { expected.replaceSubrange(index * 65536..<(index + 1) * 65536, with: copy) }
    }
    for index in damage.lost {
      expected.replaceSubrange(index * 65536..<(index + 1) * 65536, with: [UInt8](repeating: 0, count: 65536))
    }
    if damage.name.hasSuffix("behind the BAT"), !isExtended {
      // It can be read, and so it is moved.
      expected.replaceSubrange(2 * 65536..<3 * 65536, with: bytes[512..<512 + 65536])
    }
    damage.change(&bytes, image)
    let leaks: UInt64 = damage.name == "room at the end" ? 2 : 0

    let store = MemoryStore(bytes)
    let found = try chain(store, .readOnly).check(progress: .none)
    #expect(found.findings == damage.findings.map { "ERROR \($0)" })
    #expect(found.corruptions == damage.corruptions && found.leaks == leaks)
    #expect(store.snapshot == bytes, "a check changes nothing")

    let mended = try chain(store, .readWrite).repair(.all, progress: .none)
    #expect(mended.findings == damage.findings.map { "Repairing \($0)" })
    #expect(mended.corruptions == 0 && mended.leaks == 0)
    #expect(mended.corruptionsFixed == damage.corruptions && mended.leaksFixed == leaks)
    let again = try chain(store, .readOnly).check(progress: .none)
    #expect(again.findings.isEmpty)
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image")
      let verdict = try ReferenceTool.check(path, format: "parallels", folder: folder.path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
      #expect(try ReferenceTool.content(of: path, format: "parallels", in: folder) == expected)
    }
  }

  private func chain(_ store: MemoryStore, _ access: FileAccess) throws -> any Repairable {
    let chain = try ImageChain.over(
      store, format: ParallelsFormat.self, access: access, isForInspection: true)
    return try #require(chain.top as? any Repairable)
  }

  @Test func repairOfLeaksLeavesErrors() throws {
    var random = SeededRandom(seed: 8)
    var bytes = ParallelsImage.small.build(&random)
    bytes.put(littleEndian: ParallelsHeader.inUseMark, at: 44)
    bytes += [1]
    let store = MemoryStore(bytes)
    let report = try chain(store, .readWrite).repair(.leaks, progress: .none)
    #expect(report.corruptions == 1 && report.leaksFixed == 1 && report.corruptionsFixed == 0)
    #expect(
      report.findings == [
        "ERROR image was not closed correctly", "Repairing space leaked at the end of the image 512",
      ])
    #expect(store.snapshot == Array(bytes.dropLast()))
  }

  /// qemu-img makes zeros of a cluster that the file ends in; what is there is data.
  @Test func clusterThatTheFileEndsInKeepsItsData() throws {
    var random = SeededRandom(seed: 8)
    let good = ParallelsImage.small.build(&random)
    let store = MemoryStore(Array(good.dropLast(1000)))
    let report = try chain(store, .readWrite).repair(.all, progress: .none)
    #expect(report.findings == ["Repairing cluster 31 is outside image"])
    #expect(store.snapshot == good.dropLast(1000) + [UInt8](repeating: 0, count: 1000))
  }

  /// The plain dialect's clusters may begin anywhere: without a data offset their places show where.
  @Test func dataOffsetIsFoundFromTheClusters() throws {
    var random = SeededRandom(seed: 8)
    var image = ParallelsImage.small
    image.isExtended = false
    image.dataSector = 131
    var bytes = image.build(&random)
    let disk = image.disk(bytes)
    bytes.put(littleEndian: UInt32.max, at: 48)
    let store = MemoryStore(bytes)
    _ = try chain(store, .readWrite).repair(.all, progress: .none)
    let sector = try store.snapshot.parsed { (span) throws(EngineError) in
      try span.littleEndian(UInt32.self, at: 48)
    }
    #expect(sector % 128 == 131 % 128)
    #expect(try ImageChain.over(store, format: ParallelsFormat.self).readAll() == disk)
  }

  @Test func everyFailedCallOfARepairLosesNothing() throws {
    var random = SeededRandom(seed: 8)
    let image = ParallelsImage.small
    var bytes = image.build(&random)
    bytes.put(littleEndian: Self.entry(2, image), at: 68)
    bytes.put(littleEndian: ParallelsHeader.inUseMark, at: 44)
    let before = try ImageChain.over(MemoryStore(bytes), format: ParallelsFormat.self).readAll()
    for number in 0..<40 {
      let memory = MemoryStore(bytes)
      let store = FaultStore(memory)
      let layer = try ImageChain.over(
        store, format: ParallelsFormat.self, access: .readWrite, isForInspection: true)
      store.arm(failing: number)
      _ = try? (layer.top as? any Repairable)?.repair(.all, progress: .none)
      let after = try ImageChain.over(memory, format: ParallelsFormat.self)
      #expect(try after.readAll() == before, "call \(number)")
      let again = try ImageChain.over(
        memory, format: ParallelsFormat.self, access: .readWrite, isForInspection: true)
      _ = try (again.top as? any Repairable)?.repair(.all, progress: .none)
      #expect(try again.readAll() == before, "call \(number), mended after it")
      #expect(try (again.top as? any Checkable)?.check(progress: .none).corruptions == 0)
    }
  }

  /// A small file that would become a large one by copies.
  @Test func tableWhoseEntriesAreAllAlikeIsNotMended() throws {
    var random = SeededRandom(seed: 91)
    var image = ParallelsImage(storedCount: 1)
    for index in 0..<32 { image.places[index] = 0 }
    let bytes = image.build(&random)
    let store = MemoryStore(bytes)
    #expect(throws: EngineError.self) {
      try ImageChain.over(store, format: ParallelsFormat.self, access: .readWrite)
    }
    #expect(store.snapshot == bytes)
    #expect(try ImageChain.over(store, format: ParallelsFormat.self).readAll() == image.disk(bytes))
  }

  /// Such an entry is read, with zeros for what is missing, so a check sees it, and one repair is enough.
  @Test(arguments: 1...3) func entryOfWhichTheFileHasAPartIsMended(_ count: Int) throws {
    var random = SeededRandom(seed: 12)
    var image = ParallelsImage.small
    image.places = [:]
    var bytes = Array(image.build(&random)[..<(64 + 4 * 20)])
    bytes += [UInt8](repeating: 0x7f, count: count)
    let store = MemoryStore(bytes)
    let words = "cluster 20 is outside image"
    #expect(try chain(store, .readOnly).check(progress: .none).findings.contains("ERROR \(words)"))
    let report = try chain(store, .readWrite).repair(.all, progress: .none)
    #expect(report.findings.contains("Repairing \(words)"))
    #expect(try chain(store, .readOnly).check(progress: .none).corruptions == 0)
  }

  /// A cluster may have 2 GiB, of which the file holds some KiB: what is not there is not written out for each copy.
  @Test func copiesOfSharedClustersStaySparse() throws {
    var random = SeededRandom(seed: 13)
    var image = ParallelsImage(isExtended: false, clusterSectors: 16384, sectorCount: 3 * 16384)
    image.dataSector = 1
    image.places = [0: 0, 1: 0, 2: 0]
    let data = random.bytes(100_000)
    let store = MemoryStore(image.build(&random) + data)
    let counting = CountingStore(store)
    let chain = try ImageChain.over(
      counting, format: ParallelsFormat.self, access: .readWrite, isForInspection: true)
    let report = try #require(chain.top as? any Repairable).repair(.all, progress: .none)
    #expect(report.findings.filter { $0.hasPrefix("Repairing duplicate") }.count == 2)
    #expect(counting.byteCount(.write) < 3 << 20)
    let disk = try ImageChain.over(store, format: ParallelsFormat.self).readAll()
    let cluster = data + [UInt8](repeating: 0, count: image.clusterSize - data.count)
    #expect(disk == cluster + cluster + cluster)
  }

  /// In the plain dialect a cluster may begin at any sector. One between the BAT and the data area that lies at no place of
  /// the area is mended by a copy: a guest reads of it what it read before.
  @Test func readableClusterBeforeTheDataIsNotLost() throws {
    var random = SeededRandom(seed: 9)
    var image = ParallelsImage.small
    image.isExtended = false
    // Room for more than a cluster between the BAT and the data.
    image.dataSector = 300
    var bytes = image.build(&random)
    let stray = [2: 10, 3: 180]
    for (index, sector) in stray {
      bytes.replaceSubrange(sector * 512..<sector * 512 + 65536, with: random.bytes(65536))
      bytes.put(littleEndian: UInt32(sector), at: 64 + 4 * index)
    }
    var expected = image.disk(bytes)
    for (index, sector) in stray {
      expected.replaceSubrange(
        index * 65536..<(index + 1) * 65536, with: bytes[sector * 512..<sector * 512 + 65536])
    }
    let before = try ImageChain.over(MemoryStore(bytes), format: ParallelsFormat.self).readAll()
    #expect(ModelDisk.firstDifference(before, expected) == nil)
    let store = MemoryStore(bytes)
    let writer = try ImageChain.over(store, format: ParallelsFormat.self, access: .readWrite)
    try writer.writeBytes([UInt8](repeating: 7, count: 65536), at: 10 * 65536)
    expected.replaceSubrange(10 * 65536..<11 * 65536, with: [UInt8](repeating: 7, count: 65536))
    #expect(ModelDisk.firstDifference(try writer.readAll(), expected) == nil)
    try writer.close()
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image")
      let verdict = try ReferenceTool.check(path, format: "parallels", folder: folder.path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
      #expect(try ReferenceTool.content(of: path, format: "parallels", in: folder) == expected)
    }
  }
}
