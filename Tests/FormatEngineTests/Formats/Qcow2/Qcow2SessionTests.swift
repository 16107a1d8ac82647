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

  /// An image with clusters of 512 bytes whose refcount table is full at 8 MiB of file, and which is nearly there.
  private static func beforeItsTableMoves() throws -> [UInt8] {
    let store = MemoryStore()
    var options = OptionValues(Qcow2Format.createOptions)
    try options.set("cluster_size", to: "512")
    try Qcow2Format.create(
      on: store,
      CreateRequest(
        path: "image", virtualSize: 16 * MiB, options: options, references: ReferenceOpener()))
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    var offset: UInt64 = 0
    while try store.byteCount() < 8 * MiB - 40 * KiB {
      try chain.writeBytes([UInt8](repeating: UInt8(offset >> 14 & 127 | 1), count: 16384), at: offset)
      offset += 16384
    }
    try chain.close()
    return store.snapshot
  }

  /// Any call fails while the refcount table moves: what is written afterwards is counted where the header leads to.
  @Test(arguments: [false, true]) func failedMoveOfTheRefcountTableLosesNothing(_ isForEver: Bool) throws {
    let good = try Self.beforeItsTableMoves()
    let before = try ImageChain.over(MemoryStore(good), format: Qcow2Format.self).readAll()
    func write(failing number: Int?) throws -> Int {
      let moment = "call \(number ?? -1)"
      let memory = MemoryStore(good)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      var content = before
      func change(_ offset: Int, _ value: UInt8) {
        let bytes = [UInt8](repeating: value, count: 64 << 10)
        do throws(EngineError) {
          try chain.writeBytes(bytes, at: UInt64(offset))
          content.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        } catch {
          // Parts of it may be there.
          let end = offset + bytes.count
          if let now = try? chain.readBytes(at: UInt64(offset), count: bytes.count) {
            content.replaceSubrange(offset..<end, with: now)
          }
        }
      }
      store.arm(failing: number, forEver: isForEver, of: [.write, .flush])
      change(9 << 20, 0xa1)
      let calls = store.callCount
      store.arm(failing: nil)
      for place in 10..<14 { change(place << 20, UInt8(0xa0 + place)) }
      try chain.close()
      // Somebody else goes on.
      let next = try ImageChain.over(memory, format: Qcow2Format.self, access: .readWrite)
      let bytes = [UInt8](repeating: 0xbb, count: 256 << 10)
      try next.writeBytes(bytes, at: 15 << 20)
      content.replaceSubrange(15 << 20..<15 << 20 + bytes.count, with: bytes)
      try next.close()
      let report = try #require(next.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(moment): \(report.findings.prefix(3))")
      let now = try ImageChain.over(MemoryStore(memory.snapshot), format: Qcow2Format.self).readAll()
      #expect(ModelDisk.firstDifference(now, content) == nil, "\(moment)")
      return calls
    }
    let calls = try write(failing: nil)
    #expect(calls > 5)
    for number in stride(from: 0, to: calls, by: max(1, calls / Effort.rounds(24))) {
      _ = try write(failing: number)
    }
  }
}
