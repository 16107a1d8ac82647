import TestSupport
import Testing

@testable import FormatEngine

@Suite struct VHDXHeaderTests {
  @Test func checksumsAreCastagnolis() {
    #expect(CRC32C.checksum(of: Array("123456789".utf8)) == 0xe306_9283)
    #expect(CRC32C.checksum(of: []) == 0)
    // RFC 3720, B.4.
    #expect(CRC32C.checksum(of: [UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
    var random = SeededRandom.fromEnvironment(or: 61)
    for _ in 0..<40 {
      let bytes = random.bytes(random.below(5000))
      let cut = random.below(bytes.count + 1)
      var byTables = CRC32C(usesProcessor: false)
      byTables.add(Array(bytes[..<cut]))
      byTables.add(Array(bytes[cut...]))
      #expect(byTables.value == CRC32C.checksum(of: bytes), "\(bytes.count) bytes")
    }
  }

  @Test func guidsAreReadAndWrittenAsText() throws {
    let text = "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}"
    let guid = try #require(VHDXGuid(text: text))
    #expect(guid.description == text)
    #expect(VHDXGuid(text: text.uppercased()) == guid)
    var bytes: [UInt8] = []
    guid.append(to: &bytes)
    #expect(bytes.prefix(8) == [0xc3, 0x0e, 0xed, 0x83, 0xc8, 0x24, 0xa6, 0x49])
    #expect(bytes.suffix(8) == [0xa9, 0x59, 0x5e, 0x4b, 0xf1, 0x28, 0x8b, 0xfb])
    #expect(try bytes.parsed { (span) throws(EngineError) in try VHDXGuid.parse(span, at: 0) } == guid)
    for wrong in [
      "", "{}", "83ed0ec3-24c8-49a6-a959", "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfg}",
      "{+3ed0ec3-24c8-49a6-a959-5e4bf1288bfb}",
    ] {
      #expect(VHDXGuid(text: wrong) == nil, "\(wrong)")
    }
    #expect(try VHDXGuid.new(.unique, for: "a") != VHDXGuid.new(.unique, for: "a"))
  }

  @Test func newerOfTheHeadersCounts() throws {
    var image = try VHDXBytes()
    #expect(try image.header.sequenceNumber == 2)
    image.bytes[(128 << 10) + 4095] ^= 1
    #expect(try image.header.sequenceNumber == 1)
    #expect(image.refusal() == nil)
    image.bytes[64 << 10] ^= 1
    #expect(image.refusal()?.message == "No valid VHDX header found")
  }

  @Test func damagedRegionTableIsReadFromItsCopy() throws {
    var image = try VHDXBytes()
    image.bytes[(192 << 10) + 60000] ^= 1
    #expect(image.refusal() == nil)
    image.bytes[(256 << 10) + 60000] ^= 1
    #expect(image.refusal()?.message == "No valid VHDX region table found")
  }

  private static let fields: [(name: String, set: @Sendable (inout VHDXBytes, UInt64) -> Void)] = [
    ("log version", { $0.setHeader(64, to: UInt16(truncatingIfNeeded: $1)) }),
    ("version", { $0.setHeader(66, to: UInt16(truncatingIfNeeded: $1)) }),
    ("log length", { $0.setHeader(68, to: UInt32(truncatingIfNeeded: $1)) }),
    ("log offset", { $0.setHeader(72, to: $1) }), ("log GUID", { $0.setHeader(48, to: $1) }),
    ("sequence number", { $0.setHeader(8, to: $1) }),
    ("region count", { $0.setRegions(8, to: UInt32(truncatingIfNeeded: $1)) }),
    ("BAT offset", { $0.setRegions(32, to: $1) }),
    ("BAT length", { $0.setRegions(40, to: UInt32(truncatingIfNeeded: $1)) }),
    ("metadata offset", { $0.setRegions(64, to: $1) }),
    ("metadata length", { $0.setRegions(72, to: UInt32(truncatingIfNeeded: $1)) }),
    ("item count", { $0.put(UInt16(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 10) }),
    ("item offset", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 48) }),
    ("item length", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 52) }),
    ("item flags", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 56) }),
    ("block size", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 65536) }),
    ("file flags", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 65540) }),
    ("virtual size", { $0.put($1, at: VHDXBytes.metadata + 65544) }),
    ("sector size", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 65568) }),
    ("physical sector size", { $0.put(UInt32(truncatingIfNeeded: $1), at: VHDXBytes.metadata + 65572) }),
    ("entry", { $0.put($1, at: VHDXBytes.bat) }), ("entry, last", { $0.put($1, at: VHDXBytes.bat + 16) }),
  ]

  /// Every number at 0, 1, what could be its limits with their neighbours, and the largest.
  @Test(arguments: fields.map(\.name))
  func anyValueOfAnyFieldIsReadOrRefused(_ name: String) throws {
    let set = try #require(Self.fields.first { $0.name == name }).set
    let good = try VHDXBytes(isFixed: true)
    let limits: [UInt64] = [
      512, 2047, 4096, 64 << 10, 1 << 20, 2 << 20, 3 << 20, 7 << 20, 256 << 20, 1 << 31, 1 << 32, 64 << 40,
      1 << 63,
    ]
    for value in Set([0, 1, 2, 3, 4, 5, 6, 7, .max, .max - 1] + limits.flatMap { [$0 - 1, $0, $0 + 1] }) {
      var image = good
      set(&image, value)
      HostileImage.use(image.bytes, as: VHDXFormat.self, "\(name) = \(value)")
    }
  }

  @Test func impossibleValueIsRefusedInWords() throws {
    let good = try VHDXBytes()
    func expect(_ words: String, _ change: (inout VHDXBytes) -> Void) {
      var image = good
      change(&image)
      #expect(
        image.refusal()?.message.contains(words) == true, "\(words): \(image.refusal()?.message ?? "-")")
    }
    expect("Unsupported VHDX version 2") { $0.setHeader(66, to: UInt16(2)) }
    expect("log version 1") { $0.setHeader(64, to: UInt16(1)) }
    expect("past the end of the file") { $0.setHeader(68, to: UInt32(64 << 20)) }
    expect("in whole MiB") { $0.setHeader(72, to: UInt64(0)) }
    expect("has no valid entry") { $0.setHeader(48, to: UInt64(1)) }
    expect("more than 2047") { $0.setRegions(8, to: UInt32(2048)) }
    expect("overlaps") { $0.setRegions(32, to: UInt64(1 << 20)) }
    expect("overlaps") { $0.setRegions(64, to: UInt64(2 << 20)) }
    expect("past the end of the file") { $0.setRegions(40, to: UInt32(64 << 20)) }
    expect("0 VHDX BAT regions") {
      $0.setRegions(16, to: UInt64(1)); $0.setRegions(44, to: UInt32(0))
    }
    expect("which is unknown") { $0.setRegions(16, to: UInt64(1)) }
    expect("no signature") { $0.bytes[VHDXBytes.metadata] = 0 }
    expect("leaves its region") { $0.put(UInt32(1 << 20), at: VHDXBytes.metadata + 48) }
    expect("which is unknown") { $0.put(UInt64(1), at: VHDXBytes.metadata + 32) }
    expect("is there twice") { image in
      let first = Array(image.bytes[VHDXBytes.metadata + 32..<VHDXBytes.metadata + 64])
      image.bytes.replaceSubrange(VHDXBytes.metadata + 64..<VHDXBytes.metadata + 96, with: first)
    }
    expect("power of two") { $0.put(UInt32(3 << 20), at: VHDXBytes.metadata + 65536) }
    expect("power of two") { $0.put(UInt32(512 << 20), at: VHDXBytes.metadata + 65536) }
    expect("neither 512 nor 4096") { $0.put(UInt32(0), at: VHDXBytes.metadata + 65568) }
    expect("64 TiB") { $0.put(UInt64(65 << 40), at: VHDXBytes.metadata + 65544) }
    expect("whole sectors") { $0.put(UInt64(513), at: VHDXBytes.metadata + 65544) }
    expect("the disk needs") { $0.put(UInt64(1 << 40), at: VHDXBytes.metadata + 65544) }
    expect("parent locator") { $0.put(UInt32(2), at: VHDXBytes.metadata + 65540) }
  }

  @Test func headsOfOtherFilesAreNotClaimed() throws {
    let good = try VHDXBytes().bytes
    func score(_ bytes: [UInt8]) throws -> ProbeScore {
      try bytes.parsed { (span) throws(EngineError) in VHDXFormat.probe(span, path: "x.vhdx") }
    }
    #expect(try score(Array(good.prefix(2048))) == .certain)
    #expect(try score(Array(good.prefix(7))) == .none)
    #expect(try score([]) == .none)
    #expect(try score([UInt8](repeating: 0, count: 2048)) == .none)
  }

  /// 64 MiB of BAT in a hole: next to nothing of it is read, and nothing is kept.
  @Test func largestDiskIsOpenedAtOnce() throws {
    try TemporaryFolder.with { folder in
      let file = try FileStore.create(folder.file("big.vhdx"), cache: .unflushed)
      let size = 64 << 40
      try VHDXBytes.new(size, 1 << 20, 512).write(to: file)
      let chain = try ImageOpener.open(folder.file("big.vhdx"))
      #expect(chain.virtualSize == UInt64(size))
      #expect(try chain.readBytes(at: UInt64(size) - 512, count: 512) == [UInt8](repeating: 0, count: 512))
      Deadline.within(seconds: 2, "opening 64 TiB twenty times") {
        for _ in 0..<20 { _ = try? ImageOpener.open(folder.file("big.vhdx")) }
      }
    }
  }
}
