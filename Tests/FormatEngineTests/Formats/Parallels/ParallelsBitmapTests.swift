import TestSupport
import Testing

@testable import FormatEngine

@Suite struct ParallelsBitmapTests {
  /// A disk of 32 clusters with an extension in a cluster of its own, and its bits in the next.
  private func image(_ change: (inout [UInt8]) -> Void = { _ in }, resealing: Bool = true) throws -> [UInt8] {
    var random = SeededRandom(seed: 4)
    var small = ParallelsImage.small
    small.storedCount = 6
    small.extensionSector = UInt64(small.dataOffset / 512 + 4 * 128)
    var bytes = small.build(&random)
    let start = Int(small.extensionSector) * 512
    bytes.replaceSubrange(start..<start + 131_072, with: [UInt8](repeating: 0, count: 131_072))
    bytes.put(littleEndian: UInt64(0xab23_4cef_23dc_ea87), at: start)
    bytes.put(littleEndian: UInt64(0x2038_5fae_252c_b34a), at: start + 24)
    bytes.put(littleEndian: UInt32(40), at: start + 40)
    bytes.put(littleEndian: UInt64(4096), at: start + 48)
    bytes.replaceSubrange(start + 56..<start + 72, with: (0xa0..<0xb0))
    bytes.put(littleEndian: UInt32(8), at: start + 72)
    bytes.put(littleEndian: UInt32(1), at: start + 76)
    bytes.put(littleEndian: small.extensionSector + 128, at: start + 80)
    // Bits of 4 KiB: 3, 4, 5, and the last of the disk.
    bytes[start + 65536] = 0b11_1000
    bytes[start + 65536 + 63] = 0x80
    change(&bytes)
    if resealing {
      let digest = try HashAlgorithm.md5.digest(Array(bytes[start + 24..<start + 65536]))
      bytes.replaceSubrange(start + 8..<start + 24, with: digest)
    }
    return bytes
  }

  private static let start = 65536 * 5
  private static let name = "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"

  private func keeper(_ bytes: [UInt8]) throws -> any BitmapKeeping {
    try #require(
      try ImageChain.over(MemoryStore(bytes), format: ParallelsFormat.self).top as? any BitmapKeeping)
  }

  @Test func bitmapIsReadBitForBit() throws {
    let keeper = try keeper(image())
    #expect(try keeper.bitmaps() == [BitmapRecord(name: Self.name, granularity: 4096)])
    var runs: [Range<UInt64>] = []
    try keeper.forEachDirtyRun(of: Self.name) { runs.append($0) }
    #expect(runs == [12288..<24576, 2_093_056..<2_097_152])
    #expect(throws: EngineError.self) { try keeper.forEachDirtyRun(of: "another") { _ in } }
  }

  /// Each takes hundreds of bytes of memory, and 56 of the file.
  @Test func bitmapsAreNotWithoutNumber() throws {
    func image(_ count: Int) throws -> [UInt8] {
      var random = SeededRandom(seed: 4)
      var image = ParallelsImage(clusterSectors: 8192, sectorCount: 0, storedCount: 1)
      image.extensionSector = 8192
      var bytes = image.build(&random)
      let start = 8192 * 512
      bytes.replaceSubrange(start..., with: [UInt8](repeating: 0, count: start))
      bytes.put(littleEndian: UInt64(0xab23_4cef_23dc_ea87), at: start)
      for place in stride(from: start + 24, to: start + 24 + count * 56, by: 56) {
        bytes.put(littleEndian: UInt64(0x2038_5fae_252c_b34a), at: place)
        bytes.put(littleEndian: UInt32(32), at: place + 16)
        bytes.put(littleEndian: UInt32(8), at: place + 24 + 24)
      }
      bytes.replaceSubrange(
        start + 8..<start + 24, with: try HashAlgorithm.md5.digest(bytes[(start + 24)...]))
      return bytes
    }
    let many = try keeper(image(65_535))
    #expect(try many.bitmaps().count == 65_535)
    #expect {
      let more = try keeper(image(65_536))
      return try more.bitmaps()
    } throws: { ($0 as? EngineError)?.code == .unsupported }
  }

  @Test func tableEntriesStandForAllOrNoBits() throws {
    for (entry, expected) in [(UInt64(0), []), (1, [UInt64(0)..<2_097_152])] {
      var runs: [Range<UInt64>] = []
      try keeper(image { $0.put(littleEndian: entry, at: Self.start + 80) })
        .forEachDirtyRun(of: Self.name) { runs.append($0) }
      #expect(runs == expected)
    }
  }

  @Test(
    arguments: [
      (0, 1, "Wrong parallels Format Extension magic: 0xab234cef23dcea01, expected: 0xab234cef23dcea87"),
      (24, 0x11, "Unknown feature: 0x20385fae252cb311"),
      (32, 1, "Flags for extension feature are unsupported"),
      (43, 1, "Feature data_size exceedes Format Extension cluster"),
      (
        40, 31,
        "Too small Bitmap Feature area in Parallels Format Extension: 31 bytes, expected at least 32 bytes"
      ),
      (48, 1, "Bitmap size (in sectors) 4097 differs from disk size in sectors 4096"),
      (72, 7, "The granularity of a bitmap, 7 sectors, is no power of two"),
      (72, 0, "The granularity of a bitmap, 0 sectors, is no power of two"),
      (76, 2, "Bitmaps feature corrupted: l1 table exceeds extension data_size"),
      (79, 0xff, "Bitmaps feature corrupted: l1 table exceeds extension data_size"),
      (76, 0, "Bitmap table size 0 does not correspond to bitmap size and cluster size. Expected 1"),
    ] as [(Int, UInt8, String)])
  func damageIsNamed(_ offset: Int, _ value: UInt8, _ words: String) throws {
    let bytes = try image { $0[Self.start + offset] = value }
    let keeper = try keeper(bytes)
    let error = #expect(throws: EngineError.self) { try keeper.bitmaps() }
    #expect(error?.message == words)
    // The disk itself is not concerned.
    #expect(try ImageChain.over(MemoryStore(bytes), format: ParallelsFormat.self).readAll().count == 2 << 20)
  }

  @Test func wrongChecksumAndPlaceAreNamed() throws {
    let spoiled = try image({ $0[Self.start + 60_000] = 1 }, resealing: true)
    #expect(try keeper(spoiled).bitmaps().count == 1)
    for (offset, bytes) in [(0, try image({ $0[Self.start + 60_000] = 1 }, resealing: false))] {
      let error = #expect(throws: EngineError.self) { try keeper(bytes).bitmaps() }
      #expect(
        error?.message == "Wrong checksum in Format Extension header. Format extension is corrupted.",
        "\(offset)")
    }
    for sector in [UInt64(2000), 1 << 54, 1 << 55, 1 << 63, .max] {
      let bytes = try image { $0.put(littleEndian: sector, at: 56) }
      let error = #expect(throws: EngineError.self) { try keeper(bytes).bitmaps() }
      #expect(error?.message == "Format Extension lies past the end of the image file")
    }
    for entry in [UInt64(2000), 1 << 55, .max] {
      let keeper = try keeper(image { $0.put(littleEndian: entry, at: Self.start + 80) })
      #expect(throws: EngineError.self) { try keeper.forEachDirtyRun(of: Self.name) { _ in } }
    }
  }

  /// Extensions without an end: the last feature reaches exactly to the end of the cluster.
  @Test func listWithoutAnEndIsNamed() throws {
    let bytes = try image { $0.put(littleEndian: UInt32(65536 - 48), at: Self.start + 40) }
    let error = #expect(throws: EngineError.self) { try keeper(bytes).bitmaps() }
    #expect(error?.message.hasPrefix("Can not read feature header, as remaining bytes (0)") == true)
  }

  @Test func whatTheExtensionTakesIsInUse() throws {
    let layer =
      try ImageChain.over(MemoryStore(try image()), format: ParallelsFormat.self).top as? any Checkable
    let report = try #require(layer).check(progress: .none)
    #expect(report.leaks == 0 && report.corruptions == 0)
    #expect(report.imageEndOffset == UInt64(Self.start + 131_072))
  }

  @Test func writingDropsTheExtension() throws {
    let store = MemoryStore(try image())
    let chain = try ImageChain.over(store, format: ParallelsFormat.self, access: .readWrite)
    #expect(try (chain.top as? any BitmapKeeping)?.bitmaps().count == 1)
    try chain.writeBytes([1], at: 70_000)
    #expect(try (chain.top as? any BitmapKeeping)?.bitmaps().isEmpty == true)
    try chain.close()
    #expect(store.snapshot.count == Self.start, "its clusters are free")
    let header = try ParallelsHeader.read(from: store)
    #expect(header.extensionSector == 0)
  }

  @Test func imageWithAnUnknownNecessaryFeatureIsNotWritten() throws {
    for (flags, isRefused) in [(UInt8(1), true), (2, false), (0, false)] {
      let store = MemoryStore(
        try image {
          $0[Self.start + 24] = 0x77
          $0[Self.start + 32] = flags
        })
      let before = store.snapshot
      let chain = try ImageChain.over(store, format: ParallelsFormat.self, access: .readWrite)
      let failed = (try? chain.writeBytes([1], at: 0)) == nil
      #expect(failed == isRefused)
      if isRefused { #expect(store.snapshot == before) }
    }
  }

  @Test func digestOfMD5IsTheStandards() throws {
    #expect(
      try HashAlgorithm.md5.digest(Array("abc".utf8)) == [
        0x90, 0x01, 0x50, 0x98, 0x3c, 0xd2, 0x4f, 0xb0, 0xd6, 0x96, 0x3f, 0x7d, 0x28, 0xe1, 0x7f, 0x72,
      ])
  }
}
