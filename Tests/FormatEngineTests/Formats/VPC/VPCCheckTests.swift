import FormatEngine
import TestSupport
import Testing

/// What check finds, and what a repair makes of it.
struct VPCCheckTests {
  private static let byteCount = 100 * 1024

  private static let image: [UInt8] = {
    var random = SeededRandom(seed: 81)
    return (try? VPCImage().build(byteCount: byteCount, &random).file) ?? []
  }()

  private func check(_ bytes: [UInt8]) throws -> CheckReport {
    let chain = try ImageChain.over(MemoryStore(bytes), format: VPCFormat.self, isForInspection: true)
    return try #require(chain.top as? any Checkable).check(progress: .none)
  }

  /// Repairs, and gives the report, what a second check finds, and the bytes.
  private func repair(_ bytes: [UInt8], _ mode: RepairMode) throws -> (CheckReport, CheckReport, [UInt8]) {
    let store = MemoryStore(bytes)
    let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite, isForInspection: true)
    let layer = try #require(chain.top as? any Repairable)
    let report = try layer.repair(mode, progress: .none)
    let again = try layer.check(progress: .none)
    #expect(again == (try check(store.snapshot)))
    return (report, again, store.snapshot)
  }

  private func content(_ bytes: [UInt8]) throws -> [UInt8] {
    try ImageChain.over(MemoryStore(bytes), format: VPCFormat.self).readAll()
  }

  /// Room of a block that was let go of is not both the table's and a new block's.
  @Test func tableDoesNotGrowIntoRoomThatIsHandedOutAgain() throws {
    let store = MemoryStore(VPCImage().empty(byteCount: 128 * 4096))
    let first = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    try first.writeBytes([UInt8](repeating: 1, count: 4096), at: 0)
    try first.writeBytes([UInt8](repeating: 2, count: 4096), at: 4096)
    try first.close()
    let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    // The block that stands behind the table goes.
    try chain.discard(at: 0, count: 4096)
    try chain.flush()
    try chain.resize(to: 256 * 4096)
    try chain.writeBytes([UInt8](repeating: 3, count: 4096), at: 200 * 4096)
    try chain.close()
    let again = try ImageChain.over(store, format: VPCFormat.self)
    #expect(try again.readBytes(at: 200 * 4096, count: 4096).holdsOnly(3))
    #expect(try again.readBytes(at: 4096, count: 4096).holdsOnly(2))
    #expect(try again.readBytes(at: 0, count: 4096).isZero)
    let report = try #require(again.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0, "\(report.findings)")
  }

  /// More entries than anybody opens are not made.
  @Test func diskOfTinyBlocksDoesNotGetMoreEntriesThanCanBeRead() throws {
    var image = VPCImage()
    image.blockSize = 512
    let store = MemoryStore(image.empty(byteCount: 4096))
    let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    let error = #expect(throws: EngineError.self) {
      try chain.resize(to: (UInt64(Int32.max) / 4 + 1) * 512)
    }
    #expect(error?.code == .tooLarge)
    #expect(chain.virtualSize == 4096)
  }

  /// The specification says zeros; what some other program has put there is its affair, and is in both copies of the footer.
  @Test func bytesThatNobodyKnowsAreKept() throws {
    var bytes = Self.image
    bytes[100] = 0x77
    bytes[512 + 800] = 0x88
    VPCImage.sealFooter(&bytes, at: 0)
    VPCImage.seal(&bytes, from: 512, count: 1024, field: 36)
    let (report, again, mended) = try repair(bytes, .all)
    #expect(report.corruptionsFixed == 1 && again.corruptions == 0, "\(again.findings)")
    #expect(mended[100] == 0x77 && mended[mended.count - 512 + 100] == 0x77)
    #expect(mended[512 + 800] == 0x88)
  }

  @Test func soundImageHasNothing() throws {
    let report = try check(Self.image)
    #expect(report.findings == [] && report.corruptions == 0 && report.leaks == 0)
    #expect(report.imageEndOffset == UInt64(Self.image.count - 512))
    #expect(report.totalClusters == 25)
    #expect(report.allocatedClusters == UInt64((Self.image.count - 512 - 2048) / 4608))
  }

  @Test func damagedFootersAndHeaderAreWrittenAnew() throws {
    let tail = Self.image.count - 512
    for (place, words) in [
      (30, "ERROR the copy of the footer at the start of the image is damaged"),
      (tail + 30, "ERROR the footer at the end of the image is damaged"),
      (512 + 900, "ERROR the checksum of the dynamic disk header is wrong"),
    ] {
      var bytes = Self.image
      bytes[place] ^= 0x10
      let found = try check(bytes)
      #expect(found.findings == [words] && found.corruptions == 1)
      let (leaks, _, untouched) = try repair(bytes, .leaks)
      #expect(untouched == bytes && leaks.corruptions == 1)
      let (report, again, mended) = try repair(bytes, .all)
      #expect(report.corruptionsFixed == 1 && report.corruptions == 0)
      #expect(again.findings == [])
      #expect(mended == Self.image)
    }
  }

  @Test func missingFooterAndRoomBehindTheBlocksAreGivenBack() throws {
    for (bytes, leaks) in [
      (Array(Self.image.dropLast(512)), 1), (Self.image + [UInt8](repeating: 7, count: 5000), 1),
      (
        Array(Self.image.dropLast(512)) + [UInt8](repeating: 0, count: 4608 * 2 + 10)
          + Array(Self.image.suffix(512)), 3
      ),
    ] {
      let found = try check(bytes)
      #expect(found.corruptions == 0 && found.leaks == UInt64(leaks), "\(found.findings)")
      let (report, again, mended) = try repair(bytes, .leaks)
      #expect(report.leaksFixed == UInt64(leaks) && report.leaks == 0)
      #expect(again.findings == [])
      #expect(mended == Self.image)
    }
  }

  @Test func footersThatDifferAreFound() throws {
    var bytes = Self.image
    let tail = bytes.count - 512
    bytes.put(bigEndian: UInt64(1 << 20), at: tail + 40)
    VPCImage.sealFooter(&bytes, at: tail)
    #expect(try check(bytes).corruptions == 1)
    #expect(try repair(bytes, .all).2 == Self.image)
  }

  /// Blocks over one another stay as they are: nobody knows whose the bytes are.
  @Test func overlappingBlocksAreFoundAndKept() throws {
    for shift in [0, 1] {
      var bytes = Self.image
      let entries = (0..<25).filter { bytes[1536 + 4 * $0] != 0xff }
      let (first, second) = (1536 + 4 * entries[0], 1536 + 4 * entries[1])
      bytes.replaceSubrange(second..<second + 4, with: bytes[first..<first + 4])
      bytes[second + 3] += UInt8(shift)
      let found = try check(bytes)
      #expect(found.corruptions >= 1)
      #expect(found.findings.contains { $0.contains(shift == 0 ? "two blocks lie at" : "overlap") })
      let (report, _, mended) = try repair(bytes, .all)
      #expect(
        report.corruptions == found.corruptions && Array(mended[1536..<2048]) == Array(bytes[1536..<2048]))
    }
  }

  @Test func blocksThatAreNotInTheFileBecomeUnused() throws {
    var bytes = Self.image
    let index = try #require((0..<25).first { bytes[1536 + 4 * $0] != 0xff })
    bytes.put(bigEndian: UInt32(0x10_0000), at: 1536 + 4 * index)
    #expect(try check(bytes).corruptions == 1)
    let (report, again, mended) = try repair(bytes, .all)
    #expect(report.corruptionsFixed == 1 && again.corruptions == 0)
    var expected = try content(Self.image)
    expected.replaceSubrange(index * 4096..<(index + 1) * 4096, with: [UInt8](repeating: 0, count: 4096))
    #expect(try content(mended) == expected)
  }

  /// A differencing disk would read its parent's old bytes there, so its entry stays.
  @Test func lostBlocksOfADifferencingDiskStay() throws {
    var random = SeededRandom(seed: 82)
    var bytes = try VPCImage(isDifferencing: true).build(byteCount: Self.byteCount, &random).file
    let table = 2048
    let index = try #require((0..<25).first { bytes[table + 4 * $0] != 0xff })
    bytes.put(bigEndian: UInt32(0x10_0000), at: table + 4 * index)
    let (report, again, mended) = try repair(bytes, .all)
    #expect(report.corruptions == 1 && again.corruptions == 1 && mended == bytes)
  }

  @Test func fixedDiskThatEndsEarlyIsFound() throws {
    let image = VPCImage()
    let sound = image.fixed([UInt8](repeating: 1, count: 8192), id: .init(repeating: 2, count: 16))
    #expect(try check(sound).findings == [])
    let short = Array(sound.dropFirst(1024))
    #expect(try check(short).corruptions == 1)
    let chain = try ImageChain.over(MemoryStore(short), format: VPCFormat.self, access: .readWrite)
    #expect(throws: EngineError.self) { try chain.readBytes(at: 7168, count: 512) }
    #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 7168) }
    #expect(try chain.readBytes(at: 0, count: 7168) == [UInt8](repeating: 1, count: 7168))
  }
}
