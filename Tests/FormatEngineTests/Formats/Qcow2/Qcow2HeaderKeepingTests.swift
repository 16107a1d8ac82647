import TestSupport
import Testing

@testable import FormatEngine

/// What a change does with those parts of the header that it is not about: what is not known stays, and bits that
/// promise what this writer does not keep go first.
@Suite struct Qcow2HeaderKeepingTests {
  /// No version of the format has a meaning for it.
  private static let unknownBit: UInt64 = 1 << 50
  private static let (compatible, autoclear) = (80, 88)

  private func image(_ change: Qcow2Change, _ options: [String] = []) throws -> Qcow2Bytes {
    try change.prepare(try Qcow2Bytes.judged(options))
  }

  // MARK: Autoclear bits

  @Test(arguments: Qcow2Change.allCases)
  func unknownAutoclearBitsGoWithTheFirstChange(_ change: Qcow2Change) throws {
    var image = try image(change)
    let known = image.number(at: Self.autoclear, width: 8)
    image.put(known | Self.unknownBit, at: Self.autoclear, width: 8)
    image.put(Self.unknownBit, at: Self.compatible, width: 8)
    let after = try change.done(to: image)
    let (bits, wanted) = (after.number(at: Self.autoclear, width: 8), UInt64(change == .addBitmap ? 1 : 0))
    #expect(bits == wanted, "autoclear features \(bits)")
    #expect(after.number(at: Self.compatible, width: 8) == Self.unknownBit)
  }

  /// A power cut anywhere in a change: where anything but the header is another, the bits are gone.
  @Test(arguments: [Qcow2Change.write, .packed, .createSnapshot, .grow, .addBitmap])
  func unknownAutoclearBitsGoBeforeAnythingElseChanges(_ change: Qcow2Change) throws {
    var image = try image(change)
    image.put(Self.unknownBit, at: Self.autoclear, width: 8)
    let store = CrashStore(image.bytes)
    try change.perform(on: store)
    var random = SeededRandom.fromEnvironment(or: 64)
    let last = min(store.eventCount, 20)
    store.forEachCrashState(cuts: 0...last, random: &random, randomCount: 2) { state in
      let now = Qcow2Bytes(bytes: state.bytes)
      guard now.number(at: Self.autoclear, width: 8) & Self.unknownBit != 0 else { return }
      #expect(ModelDisk.firstDifference(now.bytes, image.bytes) == nil, "cut \(state.cut), \(state.story)")
    }
  }

  /// Opening is no change, and neither is a write that did not come about.
  @Test func unknownAutoclearBitsStayWhereNothingChanges() throws {
    var image = try image(.write)
    image.put(Self.unknownBit, at: Self.autoclear, width: 8)
    let memory = MemoryStore(image.bytes)
    try ImageChain.over(memory, format: Qcow2Format.self, access: .readWrite).close()
    #expect(ModelDisk.firstDifference(memory.snapshot, image.bytes) == nil)
    let store = FaultStore(memory)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    #expect(try chain.readAll().count == 1 << 20)
    store.arm(failing: 0, forEver: true, of: [.write])
    #expect(throws: EngineError.self) { try chain.writeBytes([1, 2, 3], at: 70_000) }
    store.arm(failing: nil)
    #expect(ModelDisk.firstDifference(memory.snapshot, image.bytes) == nil)
  }

  /// The first write of a session fails: the next one must not take for done what was to be done before it.
  @Test(arguments: [StoreCall.write, .flush])
  func whatTheFirstChangeOwesIsMadeUpForByTheNext(_ call: StoreCall) throws {
    var image = try Qcow2Bytes.judged(["lazy_refcounts=on"])
    image.put(Self.unknownBit, at: Self.autoclear, width: 8)
    let memory = MemoryStore(image.bytes)
    let store = FaultStore(memory)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    store.arm(failing: 0, of: [call])
    #expect(throws: EngineError.self) { try chain.writeBytes([1, 2, 3], at: 700_000) }
    store.arm(failing: nil)
    try chain.writeBytes([4, 5, 6], at: 800_000)
    try chain.flush()
    let meanwhile = Qcow2Bytes(bytes: memory.snapshot)
    #expect(meanwhile.number(at: Self.autoclear, width: 8) == 0)
    #expect(meanwhile.number(at: 72, width: 8) & 1 == 1, "lazy counts, and no mark of it")
    // The mark cannot be taken off; whoever writes on is marked again.
    store.arm(failing: 0, of: [call])
    #expect(throws: EngineError.self) { try chain.close() }
    store.arm(failing: nil)
    try chain.writeBytes([7, 8, 9], at: 900_000)
    try chain.flush()
    #expect(Qcow2Bytes(bytes: memory.snapshot).number(at: 72, width: 8) & 1 == 1)
    try chain.close()
    let closed = Qcow2Bytes(bytes: memory.snapshot)
    #expect(closed.number(at: 72, width: 8) & 1 == 0)
    #expect(try SnapshotChange.isSound(closed.bytes))
    #expect(try closed.open().readBytes(at: 900_000, count: 3) == [7, 8, 9])
  }

  /// The bit of bitmaps without the list of them promises nothing; with the list it stays.
  @Test(arguments: Qcow2Change.allCases) func bitOfBitmapsStaysWithItsList(_ change: Qcow2Change) throws {
    var lone = try image(change)
    guard change != .removeBitmap else { return }
    lone.put(1, at: Self.autoclear, width: 8)
    let bits = try change.done(to: lone).number(at: Self.autoclear, width: 8)
    #expect(bits == (change == .addBitmap ? 1 : 0))
    // Going back to a snapshot is refused then.
    guard change != .addBitmap, change != .applySnapshot else { return }
    let listed = try change.done(to: change.prepare(Qcow2Change.addBitmap.done(to: Qcow2Bytes.judged())))
    #expect(listed.number(at: Self.autoclear, width: 8) == 1)
    let keeper = try #require(try listed.open().top as? any BitmapKeeping)
    #expect(try keeper.bitmaps().map(\.name) == ["added"])
    #expect(try SnapshotChange.isSound(listed.bytes))
  }

  // MARK: Fields

  /// A header of 136 bytes with fields from a later version, an extension and a feature that nobody knows, zstd and lazy
  /// counts: each change leaves all of it byte for byte, but for the fields that it is about.
  @Test(arguments: Qcow2Change.allCases)
  func otherFieldsAndExtensionsAreKeptByteForByte(_ change: Qcow2Change) throws {
    let base = try Qcow2Bytes.judged(["compression_type=zstd", "lazy_refcounts=on"])
    var prologue = try Qcow2Prologue.read(from: MemoryStore(base.bytes))
    prologue.header.headerLength = 136
    prologue.header.laterFields = (105..<136).map { UInt8($0) }
    prologue.header.compatibleFeatures.insert(.init(rawValue: Self.unknownBit))
    prologue.extensions.all.append(.init(type: 0x1234_5678, content: Array("kept as it is".utf8)))
    var image = base
    let head = try prologue.serialised()
    image.bytes.replaceSubrange(
      0..<65536, with: head + [UInt8](repeating: 0, count: 65536 - head.count))
    image = try change.prepare(image)
    prologue = try Qcow2Prologue.read(from: MemoryStore(image.bytes))
    let after = try change.done(to: image)
    for index in 0..<136 where !change.fields.contains(where: { $0.contains(index) }) {
      #expect(after.bytes[index] == image.bytes[index], "byte \(index) of the header")
    }
    let now = try Qcow2Prologue.read(from: MemoryStore(after.bytes))
    #expect(
      now.extensions.all.filter { $0.type != change.extensionType }
        == prologue.extensions.all.filter { $0.type != change.extensionType })
    #expect(now.extensions[0x1234_5678] == Array("kept as it is".utf8))
    #expect((now.backing == prologue.backing) == (change != .setBacking))
    #expect(try SnapshotChange.isSound(after.bytes))
  }

  // MARK: The header as room

  /// The header counts as free (QEMU's 8c7de28305, 9883975050, 6bf45d59f9): nothing else gets its place.
  @Test(arguments: Qcow2Change.allCases) func headerThatCountsAsFreeIsNotGivenAway(_ change: Qcow2Change)
    throws
  {
    var image = try image(change)
    image.setCount(0, 0)
    let store = MemoryStore(image.bytes)
    // Being refused, as damage, is as good.
    do { try change.perform(on: store) } catch let error as EngineError {
      #expect(error.code == .corrupt, "\(error.message)")
    }
    let after = Qcow2Bytes(bytes: store.snapshot)
    #expect(after.number(at: 0, width: 8) == 0x5146_49fb_0000_0003)
    let chain = try after.open(isForInspection: true)
    if ![.empty, .applySnapshot].contains(change) {
      #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(20))
    }
    let keeping = try #require(chain.top as? any SnapshotKeeping)
    if let record = try keeping.snapshots().first(where: { $0.name == "before" }) {
      let snapshot = chain.replacing(layerAt: 0, with: try keeping.openSnapshot(record))
      #expect(try snapshot.readBytes(at: 0, count: 65536).holdsOnly(10))
    } else {
      #expect(change == .deleteSnapshot)
    }
  }

  /// The same where a write needs a table first.
  @Test(arguments: [false, true]) func newTableIsNotPutOverTheHeader(isPacked: Bool) throws {
    var image = try Qcow2Bytes.judged(hasSnapshot: false)
    image.setCount(0, 0)
    image.put(0, at: image.l1Offset, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let new = [UInt8](repeating: 7, count: 65536)
    if isPacked { try chain.writePacked(new, at: 65536) } else { try chain.writeBytes(new, at: 65536) }
    try chain.close()
    let after = Qcow2Bytes(bytes: store.snapshot)
    #expect(after.l2Offset != 0 && after.hostCluster(1) != 0)
    #expect(try after.open().readBytes(at: 65536, count: 65536).holdsOnly(7))
  }
}
