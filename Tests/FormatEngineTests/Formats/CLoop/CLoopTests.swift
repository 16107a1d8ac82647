import TestSupport
import Testing

@testable import FormatEngine

@Suite struct CLoopTests {
  private static let good: BuiltImage? = {
    var random = SeededRandom(seed: 75)
    return try? CLoopImage(blockSize: 65536).build(blockCount: 16, &random)
  }()

  private func image(_ change: (inout [UInt8]) -> Void = { _ in }) throws -> [UInt8] {
    var bytes = try #require(Self.good).file
    change(&bytes)
    return bytes
  }

  @Test(
    arguments: [
      (128, UInt32(513), "block_size 513 must be a multiple of 512"), (128, 0, "block_size cannot be zero"),
      (128, 0xffff_fe00, "block_size 4294966784 must be 64 MB or less"),
      (128, (64 << 20) + 512, "block_size 67109376 must be 64 MB or less"),
      (132, UInt32.max, "n_blocks 4294967295 must be 536870911 or less"),
      (132, 0x0400_0001, "image requires too many offsets, try increasing block size"),
      (132, 0x03ff_ffff, "The table of offsets goes past the end of the file"),
    ] as [(Int, UInt32, String)])
  func impossibleValueIsRefusedInWords(_ offset: Int, _ value: UInt32, _ words: String) throws {
    let bytes = try image { $0.put(bigEndian: value, at: offset) }
    #expect(HostileImage.refusal(bytes, as: CLoopFormat.self) == words)
  }

  @Test(
    arguments: [
      (0, UInt64(0xffff_ffff), UInt64(0xfffe_0000), "offsets not monotonically increasing at index 1"),
      (0, 0, .max, "invalid compressed block size at index 1"),
      (3, 0, 0, "offsets not monotonically increasing at index 3"),
      (0, 0, 300, "The first block lies inside of the table of offsets"),
    ] as [(Int, UInt64, UInt64, String)])
  func offsetsThatCannotBeAreRefusedInWords(_ index: Int, _ one: UInt64, _ next: UInt64, _ words: String)
    throws
  {
    let bytes = try image {
      $0.put(bigEndian: one, at: CLoopImage.offsetsOffset + index * 8)
      $0.put(bigEndian: next, at: CLoopImage.offsetsOffset + index * 8 + 8)
    }
    #expect(HostileImage.refusal(bytes, as: CLoopFormat.self)?.hasPrefix(words) == true)
  }

  @Test(arguments: [
    HeaderField(name: "block size", offset: 128, width: 4, limits: [512, 65536, 64 << 20]),
    HeaderField(name: "block count", offset: 132, width: 4, limits: [16, 0x03ff_ffff, 0x1fff_ffff]),
    HeaderField(name: "first offset", offset: 136, width: 8, limits: [136, 272, 1 << 40, 1 << 63]),
    HeaderField(name: "last offset", offset: 136 + 128, width: 8, limits: [272, 1 << 27, 1 << 63]),
  ])
  func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) throws {
    HostileImage.use(try image(), as: CLoopFormat.self, field)
  }

  /// Block 5: empty, damaged, cut off. The others read as before.
  @Test(arguments: ["empty", "damaged", "cut off", "too short", "too long"])
  func damageIsAnErrorOfItsBlockOnly(_ kind: String) throws {
    var random = SeededRandom(seed: 76)
    let maker = CLoopImage(blockSize: 4096)
    let plain = (0..<8).map { _ in random.fill(4096) }
    var blocks = try plain.map { try ZlibText.pack($0) }
    let wrong = kind == "cut off" ? 7 : 5
    switch kind {
    case "empty": blocks[5] = []
    case "damaged": blocks[5][blocks[5].count / 2] ^= 0x55
    case "too short": blocks[5] = try ZlibText.pack(Array(plain[5].dropLast()))
    case "too long": blocks[5] = try ZlibText.pack(plain[5] + plain[5])
    default: break
    }
    let file = maker.file(blocks)
    let chain = try ImageChain.over(
      MemoryStore(kind == "cut off" ? Array(file.dropLast(4)) : file), format: CLoopFormat.self)
    for (index, bytes) in plain.enumerated() {
      if index == wrong {
        #expect(throws: EngineError.self) { try chain.readBytes(at: UInt64(index) * 4096, count: 4096) }
        #expect(throws: EngineError.self) { try chain.readBytes(at: UInt64(index) * 4096 + 7, count: 1) }
      } else {
        #expect(try chain.readBytes(at: UInt64(index) * 4096, count: 4096) == bytes)
      }
    }
  }

  @Test func unitsAreBlocksOfAnySize() throws {
    var random = SeededRandom(seed: 77)
    let built = try CLoopImage(blockSize: 512 * 3).build(blockCount: 5, &random)
    let chain = try ImageChain.over(MemoryStore(built.file), format: CLoopFormat.self)
    #expect(try chain.top.packedUnit(at: 1535) == 0..<1536)
    #expect(try chain.top.packedUnit(at: 7679) == 6144..<7680)
    #expect(try chain.allExtents().map(\.start) == [0, 1536, 3072, 4608, 6144])
    #expect(try chain.readBytes(at: 1000, count: 6000) == Array(built.disk[1000..<7000]))
  }

  @Test func onlyTheScriptIsClaimedAndByAnyBetterClaimBeaten() throws {
    func score(_ bytes: [UInt8]) throws -> ProbeScore {
      try bytes.parsed { (span) throws(EngineError) in CLoopFormat.probe(span, path: "disk") }
    }
    let head = Array(try image().prefix(2048))
    #expect(try score(head) > .fallback && score(head) < .certain)
    #expect(try score(Array("#!/bin/sh\n".utf8)) == .none)
    #expect(try score([]) == .none)
    #expect(try score([UInt8](repeating: 0, count: 2048)) == .none)
  }

  @Test func writingIsRefused() throws {
    #expect(throws: EngineError(.readOnly, "Image is read-only")) {
      try ImageChain.over(MemoryStore(try image()), format: CLoopFormat.self, access: .readWrite)
    }
  }
}
