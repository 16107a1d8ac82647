import TestSupport
import Testing

@testable import FormatEngine

@Suite struct BochsTests {
  private static let good: BuiltImage? = {
    var random = SeededRandom(seed: 78)
    return try? BochsImage().build(byteCount: 1_032_192, &random)
  }()

  private func image(_ change: (inout [UInt8]) -> Void = { _ in }) throws -> [UInt8] {
    var bytes = try #require(Self.good).file
    change(&bytes)
    return bytes
  }

  @Test(
    arguments: [
      (72, UInt32.max, "Catalog size is too large"), (72, 0x4000_0000, "Catalog size is too large"),
      (72, 0x10_0001, "Catalog size is too large"), (72, 15, "Catalog size is too small for this disk size"),
      (72, 0, "Catalog size is too small for this disk size"),
      (92, 0x7f00_0000, "Catalog size is too small for this disk size"),
      (80, 0x8000_0000, "Extent size 2147483648 is too large"),
      (80, 0x100_0000, "Extent size 16777216 is too large"),
      (80, 0, "Extent size must be at least 512"), (80, 511, "Extent size must be at least 512"),
      (80, 65537, "Extent size 65537 is not a power of two"),
      (76, 0, "Bitmap of 0 bytes does not fit the extent size"),
      (76, UInt32.max, "Bitmap of 4294967295 bytes does not fit the extent size"),
      (68, 0, "Catalog begins inside of the header"), (64, 0x30000, "Image not in Bochs format"),
      (32, 0, "Image not in Bochs format"), (48, 0, "Image not in Bochs format"),
    ] as [(Int, UInt32, String)])
  func impossibleValueIsRefusedInWords(_ offset: Int, _ value: UInt32, _ words: String) throws {
    let bytes = try image { $0.put(bigEndian: value.byteSwapped, at: offset) }
    #expect(HostileImage.refusal(bytes, as: BochsFormat.self) == words)
  }

  @Test(arguments: [
    HeaderField(name: "version", offset: 64, width: 4, limits: [0x10000, 0x20000]),
    HeaderField(name: "header size", offset: 68, width: 4, limits: [96, 512]),
    HeaderField(name: "catalog size", offset: 72, width: 4, limits: [16, 1 << 20]),
    HeaderField(name: "bitmap size", offset: 76, width: 4, limits: [16, 512, 1 << 20]),
    HeaderField(name: "extent size", offset: 80, width: 4, limits: [512, 65536, 1 << 23]),
    HeaderField(name: "disk size", offset: 88, width: 8, limits: [512, 1 << 20, 1 << 43, 1 << 63]),
    HeaderField(name: "catalog entry", offset: 512, width: 4, limits: [16, 1 << 20]),
  ])
  func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) throws {
    HostileImage.use(try image(), as: BochsFormat.self, field, isLittleEndian: true)
  }

  @Test func entriesPastTheEndAreErrorsOfTheirExtentOnly() throws {
    let disk = try #require(Self.good).disk
    // One entry that leads beyond the file, the last that there can be.
    let chain = try ImageChain.over(
      MemoryStore(try image { $0.put(bigEndian: UInt32(0xfeff_ffff), at: BochsImage.catalogOffset) }),
      format: BochsFormat.self)
    #expect(throws: EngineError.self) { try chain.readBytes(at: 0, count: 512) }
    #expect(try chain.readBytes(at: 65536, count: 900_000) == Array(disk[65536..<965_536]))
  }

  @Test func aFileThatIsCutOffIsAnErrorNotZeros() throws {
    let built = try #require(Self.good)
    let chain = try ImageChain.over(MemoryStore(Array(built.file.dropLast(60_000))), format: BochsFormat.self)
    var failures = 0
    for offset in stride(from: 0, to: built.disk.count, by: 512) {
      guard let bytes = try? chain.readBytes(at: UInt64(offset), count: 512) else {
        failures += 1
        continue
      }
      #expect(bytes == Array(built.disk[offset..<offset + 512]))
    }
    #expect(failures > 0)
  }

  /// In pieces of 1024 extents, since a hole may have bitmaps.
  @Test func hugeEmptyDiskIsWalkedInLargePieces() throws {
    let maker = BochsImage(extentSize: 1 << 23, bitmapSize: 2048)
    var file = maker.header(byteCount: 1 << 43, catalogCount: 1 << 20)
    file += [UInt8](repeating: 0xff, count: 4 << 20)
    let chain = try ImageChain.over(MemoryStore(file), format: BochsFormat.self)
    let pieces = [Extent](repeating: Extent(.zeros, length: 1 << 33), count: 1024)
    #expect(try chain.allExtents().map(\.located.extent) == pieces)
  }

  @Test func headsOfOtherKindsAreNotClaimed() throws {
    let head = Array(try image().prefix(2048))
    func score(_ bytes: [UInt8]) throws -> ProbeScore {
      try bytes.parsed { (span) throws(EngineError) in BochsFormat.probe(span, path: "disk.bochs") }
    }
    #expect(try score(head) == .certain)
    #expect(try score(Array(head.prefix(67))) == .none)
    #expect(try score([]) == .none)
    #expect(try score([UInt8](repeating: 0, count: 2048)) == .none)
    var undoable = head
    undoable.replaceSubrange(48..<64, with: Array("Undoable".utf8) + [UInt8](repeating: 0, count: 8))
    #expect(try score(undoable) == .none)
  }

  @Test func writingIsRefused() throws {
    #expect(throws: EngineError(.readOnly, "Image is read-only")) {
      try ImageChain.over(MemoryStore(try image()), format: BochsFormat.self, access: .readWrite)
    }
  }
}
