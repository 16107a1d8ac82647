import TestSupport
import Testing

@testable import FormatEngine

/// From the first change of an image to its closing: what the image says of itself meanwhile.
@Suite struct Qcow2SessionTests {
  private func features(_ bytes: [UInt8]) throws -> Qcow2Header.Incompatible {
    try Qcow2Prologue.read(from: MemoryStore(bytes)).header.incompatibleFeatures
  }

  @Test func lazyCountsAreAnnouncedFirstAndSettledLast() throws {
    let store = CrashStore(try Qcow2Bytes.judged(["lazy_refcounts=on"], hasSnapshot: false).bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    try chain.writeBytes([UInt8](repeating: 3, count: 200_000), at: 400_000)
    guard case .write(72, _) = store.events.first else {
      Issue.record("the first write is not the mark: \(store.events.first.debugDescription)")
      return
    }
    try chain.flush()
    #expect(try features(store.content).contains(.dirty))
    try chain.writeBytes([UInt8](repeating: 4, count: 70_000), at: 900_000)
    try chain.close()
    #expect(try !features(store.content).contains(.dirty))
    // A file without the mark has the right counts, whatever moment the power fails at.
    var random = SeededRandom.fromEnvironment(or: 63)
    try store.forEachCrashState(cuts: 0...store.eventCount, random: &random) { state in
      guard try !features(state.bytes).contains(.dirty) else { return }
      let now = try ImageChain.over(MemoryStore(state.bytes), format: Qcow2Format.self)
      let report = try #require(now.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "cut \(state.cut), \(state.story): \(report.findings.prefix(3))")
    }
  }

  /// Other readers want whole clusters, as libqcow and dissect do.
  @Test func aClosedImageEndsWithAWholeCluster() throws {
    let store = MemoryStore(try Qcow2Bytes.judged(hasSnapshot: false).bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    try chain.writeBytes([1, 2, 3], at: 700_000)
    #expect(try !store.byteCount().isAligned(to: chain.top.clusterSize))
    try chain.close()
    #expect(try store.byteCount().isAligned(to: chain.top.clusterSize))
  }

  /// Nothing but the corrupt bit is written to an image whose tables overlap.
  @Test(arguments: [
    "the L2 table on the refcount block", "two L2 tables in one place", "the L1 table on the header",
  ])
  func overlappingTablesGetTheCorruptBitAndNoWrite(_ damage: String) throws {
    var image = try Qcow2Bytes.judged(["cluster_size=64k"])
    let block = image.number(at: Int(image.number(at: 48, width: 8)), width: 8)
    switch damage {
    case "the L2 table on the refcount block": image.put(1 << 63 | block, at: image.l1Offset, width: 8)
    case "two L2 tables in one place":
      // The disk is 1 MiB, but the table may be longer than the disk needs.
      image.put(2, at: 36, width: 4)
      image.put(image.number(at: image.l1Offset, width: 8), at: image.l1Offset + 8, width: 8)
    default: image.put(0, at: 40, width: 8)
    }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    for _ in 0..<2 {
      #expect(throws: EngineError.self) { try chain.writeBytes([1, 2, 3], at: 70_000) }
    }
    #expect(throws: EngineError.self) { try chain.writeZeros(at: 0, count: 65536) }
    var expected = image.bytes
    expected[79] |= 2
    #expect(store.snapshot == expected)
    #expect(throws: EngineError.self) {
      try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    }
  }

  @Test func damagedEntryDoesNotTakeGuestBytesIntoATable() throws {
    var image = try Qcow2Bytes.judged(hasSnapshot: false)
    // Guest cluster 1 says that it is where the L1 table is.
    image.put(1 << 63 | UInt64(image.l1Offset), at: image.l2Offset + 8, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    do throws(EngineError) {
      try chain.writeBytes([UInt8](repeating: 0xee, count: 4096), at: 65536)
      Issue.record("written into the L1 table")
    } catch { #expect(error.message.contains("active L1 table"), "\(error.message)") }
    #expect(try features(store.snapshot).contains(.corrupt))
    let l1 = image.l1Offset..<image.l1Offset + 4096
    #expect(store.snapshot[l1] == image.bytes[l1])
  }

  @Test(arguments: [[], ["extended_l2=on"]])
  func zerosKeepTheirRoomOnlyWhereAsked(_ options: [String]) throws {
    let store = MemoryStore(try Qcow2Bytes.judged(options, hasSnapshot: false).bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let before = try chain.locate(at: 65536, limit: 65536).extent
    try chain.writeZeros(at: 65536, count: 65536, keepingRoom: true)
    let kept = try chain.locate(at: 65536, limit: 65536).extent
    #expect(kept.source == .zeros && kept.hostOffset == before.hostOffset)
    try chain.writeZeros(at: 131_072, count: 65536)
    let freed = try chain.locate(at: 131_072, limit: 65536).extent
    #expect(freed.source == .zeros && freed.hostOffset == nil)
    try chain.writeBytes([9], at: 65536)
    #expect(try chain.locate(at: 65536, limit: 1).extent.hostOffset == before.hostOffset)
    #expect(try chain.readBytes(at: 65536, count: 3) == [9, 0, 0])
    try chain.close()
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0 && report.leaks == 0, "\(report.findings)")
  }

  /// What was freed is used again before the file grows, once nothing on disk refers to it.
  @Test func freedRoomIsUsedAgain() throws {
    let store = MemoryStore(try Qcow2Bytes.judged(hasSnapshot: false).bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    var sizes: Set<Int> = []
    for round in 0..<50 {
      try chain.discard(at: 0, count: 1 << 20)
      try chain.flush()
      try chain.writeBytes([UInt8](repeating: UInt8(round + 1), count: 1 << 20), at: 0)
      try chain.flush()
      sizes.insert(store.snapshot.count)
    }
    #expect(sizes.count == 1, "\(sizes.sorted())")
  }
}
