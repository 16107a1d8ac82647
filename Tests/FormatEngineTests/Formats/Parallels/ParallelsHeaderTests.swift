import TestSupport
import Testing

@testable import FormatEngine

@Suite struct ParallelsHeaderTests {
  private func image(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
    var random = SeededRandom(seed: 76)
    var bytes = ParallelsImage.small.build(&random)
    change(&bytes)
    return bytes
  }

  @Test(
    arguments: [
      (28, 0, "Invalid image: Zero sectors per track"),
      (28, 4_186_128, "Invalid image: Too big cluster"), (28, .max, "Invalid image: Too big cluster"),
      (32, .max, "Catalog too large"), (32, 0x4000_0001, "Catalog too large"),
      (32, 0x2000_0000, "Catalog too large"),
      (40, 0x0080_0000, "Invalid image: A disk of 36028797018968064 sectors is too large"),
      (16, 3, "Image not in Parallels format"), (0, 0, "Image not in Parallels format"),
    ] as [(Int, UInt32, String)])
  func impossibleValueIsRefusedInWords(_ offset: Int, _ value: UInt32, _ words: String) {
    #expect(
      HostileImage.refusal(image { $0.put(littleEndian: value, at: offset) }, as: ParallelsFormat.self)
        == words)
  }

  static let fields = [
    HeaderField(name: "version", offset: 16, width: 4, limits: [2]),
    HeaderField(name: "heads", offset: 20, width: 4, limits: [16]),
    HeaderField(name: "cylinders", offset: 24, width: 4, limits: [8]),
    HeaderField(name: "tracks", offset: 28, width: 4, limits: [63, 128, 4_186_127]),
    HeaderField(name: "BAT entries", offset: 32, width: 4, limits: [32, 1 << 14, 0x1fff_ffff]),
    HeaderField(name: "sectors", offset: 36, width: 8, limits: [4096, 1 << 32, 1 << 54]),
    HeaderField(name: "in use", offset: 44, width: 4, limits: [0x746f_6e59, 0x312e_3276]),
    HeaderField(name: "data offset", offset: 48, width: 4, limits: [128, 256, 640]),
    HeaderField(name: "flags", offset: 52, width: 4, limits: [1]),
    HeaderField(
      name: "extension offset", offset: 56, width: 8, limits: [128, 640, 1 << 54, 1 << 55, 1 << 63]),
    HeaderField(name: "BAT entry", offset: 64, width: 4, limits: [4, 5, 128, 640]),
  ]

  @Test(arguments: fields) func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) {
    HostileImage.use(image(), as: ParallelsFormat.self, field, isLittleEndian: true)
    HostileImage.use(
      image { $0.replaceSubrange(0..<16, with: Array("WithoutFreeSpace".utf8)) }, as: ParallelsFormat.self,
      field, isLittleEndian: true)
  }

  /// Opened for writing, which mends what is wrong, and written to: no trap, and never past what was there.
  @Test(arguments: fields) func anyValueOfAnyFieldIsMendedOrRefused(_ field: HeaderField) throws {
    for value in field.values {
      let bytes = image { bytes in
        for index in 0..<field.width {
          bytes[field.offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
        }
      }
      // What must grow by gigabytes, cannot here.
      guard field.name != "tracks" || value < 100_000, field.name != "BAT entries" || value < 1 << 20 else {
        continue
      }
      let store = MemoryStore(bytes)
      guard let chain = try? ImageChain.over(store, format: ParallelsFormat.self, access: .readWrite) else {
        continue
      }
      guard chain.virtualSize > 66_000 else { continue }
      guard (try? chain.writeBytes([7, 8, 9], at: 65_000)) != nil else { continue }
      try chain.close()
      let again = try ImageChain.over(MemoryStore(store.snapshot), format: ParallelsFormat.self)
      #expect(try again.readBytes(at: 65_000, count: 3) == [7, 8, 9], "\(field.name) = \(value)")
      let report = try #require(again.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(field.name) = \(value): \(report.findings)")
    }
  }

  @Test func clustersAreFoundInBothDialects() throws {
    var random = SeededRandom(seed: 1)
    for isExtended in [true, false] {
      for sectors: UInt32 in [1, 63, 128, 504] {
        var image = ParallelsImage(
          isExtended: isExtended, clusterSectors: sectors, sectorCount: 2000, storedCount: 3)
        image.places = [0: 2, 1: 0, 3: 1]
        if !isExtended { image.dataSector = UInt32(image.dataOffset / 512 + 3) }
        let file = image.build(&random)
        let chain = try ImageChain.over(MemoryStore(file), format: ParallelsFormat.self)
        #expect(try chain.readAll() == image.disk(file), "\(sectors) sectors")
      }
    }
  }

  /// Only the extended dialect has disks of more than 2 TiB.
  @Test func plainDialectHasSizesOf32Bits() throws {
    let bytes = image {
      $0.replaceSubrange(0..<16, with: Array("WithoutFreeSpace".utf8))
      $0.put(littleEndian: UInt64(0xffff_0000_0000_1000), at: 36)
    }
    #expect(try ImageChain.over(MemoryStore(bytes), format: ParallelsFormat.self).virtualSize == 4096 * 512)
  }

  @Test func hugeEmptyDiskIsWalkedInLargePieces() throws {
    let bytes = image {
      $0.put(littleEndian: UInt32(0x1fff_ffff), at: 32)
      $0.put(littleEndian: UInt64(0x1fff_ffff) * 128, at: 36)
    }
    try Deadline.within(seconds: 5, "a BAT of 2 GiB that the file does not have") {
      let chain = try ImageChain.over(MemoryStore(bytes), format: ParallelsFormat.self)
      // A million clusters of 64 KiB at a time.
      var position: UInt64 = 1 << 40
      while position < 2 << 40 {
        let found = try chain.extent(at: position, limit: 2 << 40 - position).extent
        #expect(found == Extent(.below, length: 1 << 36))
        position += found.length
      }
      _ = try #require(chain.top as? any Checkable).check(progress: .none)
    }
  }

  @Test func headsOfOtherKindsAreNotClaimed() throws {
    func score(_ bytes: [UInt8]) throws -> ProbeScore {
      try bytes.parsed { (span) throws(EngineError) in ParallelsFormat.probe(span, path: "x") }
    }
    let head = Array(image().prefix(2048))
    #expect(try score(head) == .certain)
    #expect(try score(Array(head.prefix(19))) == .none)
    #expect(try score([]) == .none)
    #expect(try score([UInt8](repeating: 0, count: 2048)) == .none)
    for text in [
      "<Parallels_disk_image Version='1.0'>", "\u{feff} \n<?xml version='1.0'?><Parallels_disk_image>",
    ] {
      #expect(try score(Array(text.utf8)) == .certain)
    }
    for text in ["<?xml version='1.0'?><plist>", "Parallels_disk_image", "x<Parallels_disk_image>"] {
      #expect(try score(Array(text.utf8)) == .none)
    }
  }
}
