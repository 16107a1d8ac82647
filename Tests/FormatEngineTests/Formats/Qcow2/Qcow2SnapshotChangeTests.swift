@testable import FormatEngine
import TestSupport
import Testing

/// Snapshots made, gone back to and deleted, between changes of the disk.
@Suite struct Qcow2SnapshotChangeTests {
  /// What the images are made with: by the judge, so that packed clusters are among them.
  static let recipes: [JudgeImage] = [
    JudgeImage(size: 700_416, cluster: 65536, writesCompressed: true),
    JudgeImage(size: 200_192, options: ["cluster_size=512"], cluster: 512, operationCount: 12),
    JudgeImage(size: 600_064, options: ["cluster_size=4k", "refcount_bits=64"], cluster: 4096),
    JudgeImage(size: 2_200_064, options: ["cluster_size=2M"], cluster: 2 << 20, operationCount: 4),
    JudgeImage(
      size: 700_416, options: ["cluster_size=16k", "extended_l2=on"], cluster: 16384, writesCompressed: true),
    JudgeImage(size: 600_064, options: ["compat=0.10", "cluster_size=4k"], cluster: 4096),
    JudgeImage(
      size: 500_224, options: ["cluster_size=4k", "refcount_bits=8"], cluster: 4096, depth: 1,
      writesCompressed: true),
    JudgeImage(size: 300_032, options: ["cluster_size=1k", "lazy_refcounts=on"], cluster: 1024),
    JudgeImage(size: 300_032, options: ["cluster_size=1k", "refcount_bits=2"], cluster: 1024),
    JudgeImage(size: 300_032, options: ["cluster_size=4k", "refcount_bits=4"], cluster: 4096),
  ]

  @Test(arguments: recipes)
  func anySequenceKeepsTheDiskAndEverySnapshot(_ recipe: JudgeImage) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 71)
      let path = try recipe.make("image", in: folder, random: &random)
      var disk = try SnapshotfulDisk(path, recipe, random)
      for _ in 0..<Effort.rounds(8) { try disk.step() }
      try disk.close()
      try disk.judge(folder)
    }
  }

  @Test(arguments: [recipes[0], recipes[1], recipes[4], recipes[5]])
  func takingTurnsWithTheJudgeKeepsEverySnapshot(_ recipe: JudgeImage) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 72)
      let path = try recipe.make("image", in: folder, random: &random)
      var disk = try SnapshotfulDisk(path, recipe, random)
      for round in 0..<Effort.rounds(2) {
        for _ in 0..<3 { try disk.step() }
        try disk.close()
        try disk.letTheJudgeChange(round)
        try disk.reopen()
      }
      try disk.close()
      try disk.judge(folder)
    }
  }

  /// With one bit a cluster cannot be shared.
  @Test func countsThatWouldOverflowAreRefusedAndNothingChanges() throws {
    for bits in [1, 2] {
      let store = MemoryStore(try Qcow2Bytes.judged(["refcount_bits=\(bits)"], hasSnapshot: false).bytes)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      let layer = try #require(chain.top as? any SnapshotChanging)
      let before = try chain.readAll()
      var made = 0
      for number in 1...4 {
        do throws(EngineError) {
          try layer.createSnapshot(named: "\(number)", at: SnapshotDate(seconds: 1, nanoseconds: 2))
          made += 1
        } catch { #expect(error.code == .tooLarge) }
      }
      #expect(made == (1 << bits) - 2)
      #expect(try layer.snapshots().count == made)
      #expect(try chain.readAll() == before)
      try chain.close()
      try TemporaryFolder.with { folder in
        let verdict = try ReferenceTool.check(try folder.write(store.snapshot, to: "image"))
        #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
      }
      // The other two ways round still work with as many references as there can be.
      if let last = try layer.snapshots().last {
        try layer.applySnapshot(last)
        try layer.deleteSnapshot(last)
        #expect(try chain.readAll() == before)
      }
    }
  }

  /// The widest counts, one before their end: the first snapshot goes, the second is refused. What was shared comes apart again.
  @Test(arguments: [16, 32, 64]) func widestCountsEndToo(_ bits: Int) throws {
    let most = UInt64.max >> UInt64(64 - bits)
    for free in [0, 1] as [UInt64] {
      var image = try Qcow2Bytes.judged(["refcount_bits=\(bits)"], hasSnapshot: false)
      image.setCount(image.hostCluster(1), most - free)
      let store = MemoryStore(image.bytes)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      let layer = try #require(chain.top as? any SnapshotChanging)
      for number in 0...1 {
        let before = try SnapshotChange.state(store.snapshot)
        do throws(EngineError) {
          try layer.createSnapshot(named: "\(number)", at: SnapshotDate(seconds: 1, nanoseconds: 0))
          #expect(number < free, "\(free) free: snapshot \(number) was made")
        } catch {
          #expect(error.code == .tooLarge && number >= free, "\(free) free: \(error.message)")
          #expect(try SnapshotChange.state(store.snapshot) == before)
        }
      }
      let place = image.hostCluster(1)
      let now = Qcow2Bytes(bytes: store.snapshot)
      #expect(now.count(ofCluster: place) == most, "\(free) free")
      try chain.writeBytes([UInt8](repeating: 7, count: 65536), at: 65536)
      try chain.close()
      let closed = Qcow2Bytes(bytes: store.snapshot)
      #expect(closed.count(ofCluster: place) == most - free)
      #expect(try closed.open().readBytes(at: 65536, count: 65536).holdsOnly(7))
    }
  }

  @Test func idsAreOneMoreThanTheHighest() throws {
    let chain = try Qcow2Bytes.judged().open(.readWrite)
    let layer = try #require(chain.top as? any SnapshotChanging)
    let date = SnapshotDate(seconds: 1_800_000_000, nanoseconds: 5)
    let second = try layer.createSnapshot(named: "before", at: date)
    #expect(second.id == "2" && second.dateSeconds == 1_800_000_000 && second.dateNanoseconds == 5)
    #expect(second.instructionCount == 0 && second.virtualSize == 1 << 20)
    try layer.deleteSnapshot(try #require(try layer.snapshots().first))
    #expect(try layer.snapshots() == [second])
    #expect(try layer.createSnapshot(named: "x", at: date).id == "3")
    try layer.deleteSnapshot(second)
    #expect(try layer.snapshots().map(\.id) == ["3"])
    #expect(throws: EngineError.self) { try layer.deleteSnapshot(second) }
    #expect(throws: EngineError.self) { try layer.applySnapshot(second) }
  }

  /// Ids and names that are no text, and fields that nobody knows, stay.
  @Test func whatOtherSnapshotsHaveIsKept() throws {
    var image = try Qcow2Bytes.judged()
    let table = image.snapshotsOffset
    // 32 bytes of extra fields, an id of one byte, a name of six.
    let entry =
      Array(image.bytes[table..<table + 36]) + [0, 0, 0, 32] + Array(image.bytes[table + 40..<table + 64])
      + [1, 2, 3, 4, 5, 6, 7, 8, 0xff] + [0xfe, 0, 0x80, 65, 66, 67]
    image.bytes.replaceSubrange(table..<table + entry.count, with: entry)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let layer = try #require(chain.top as? any SnapshotChanging)
    #expect(try layer.snapshots().map(\.name.hostBytes) == [[0xfe]])
    let new = try layer.createSnapshot(named: "new", at: SnapshotDate(seconds: 1, nanoseconds: 0))
    #expect(new.id == "1")
    let now = Qcow2Bytes(bytes: store.snapshot)
    #expect(Array(now.bytes[now.snapshotsOffset..<now.snapshotsOffset + entry.count]) == entry)
    try layer.deleteSnapshot(new)
    let last = Qcow2Bytes(bytes: store.snapshot)
    #expect(Array(last.bytes[last.snapshotsOffset..<last.snapshotsOffset + entry.count]) == entry)
  }

  /// Names longer than lists show: of two that are shown alike each is opened, gone back to and deleted as itself, and all bytes
  /// of the other stay.
  @Test func longNamesThatAreShownAlikeAreTwoSnapshots() throws {
    let (shown, letter) = (String(repeating: "n", count: 254) + "é", "é")
    let chain = try ImageChain.over(
      MemoryStore(try Qcow2Bytes.judged().bytes), format: Qcow2Format.self, access: .readWrite)
    let layer = try #require(chain.top as? Qcow2Layer)
    try layer.deleteSnapshot(try #require(try layer.snapshots().first))
    let date = SnapshotDate(seconds: 1, nanoseconds: 0)
    for number in 1...2 as ClosedRange<UInt8> {
      try chain.writeBytes([number], at: 0)
      try layer.createSnapshot(named: "\(number)", at: date)
    }
    try chain.writeBytes([3], at: 0)
    try chain.flush()
    try layer.rewrite { (rewrite) throws(EngineError) in
      var snapshots = try rewrite.snapshots()
      // The first is longer; both have the same id.
      for (index, name) in [shown + "x", shown].enumerated() {
        snapshots[index].nameBytes = Array(name.utf8)
        snapshots[index].idBytes = [49]
      }
      try rewrite.replaceSnapshots(with: snapshots)
    }
    let long = Array((shown + "x").utf8)
    #expect(try layer.snapshots().map(\.name.hostBytes) == [long, Array(shown.utf8)])
    // Half of the letter is cut off.
    #expect(letter.utf8.count == 2)
    let records = try layer.shownSnapshots()
    #expect(records.map(\.name.hostBytes) == [Array(long.prefix(255)), Array(long.prefix(255))])
    for list in [records, try layer.snapshots()] {
      for (record, byte) in zip(list, [1, 2] as [UInt8]) {
        let snapshot = chain.replacing(layerAt: 0, with: try layer.openSnapshot(record))
        #expect(try snapshot.readBytes(at: 0, count: 1) == [byte])
      }
    }
    try layer.applySnapshot(records[1])
    #expect(try chain.readBytes(at: 0, count: 1) == [2])
    try layer.deleteSnapshot(try #require(try layer.shownSnapshots().last))
    #expect(try layer.snapshotTable().map(\.nameBytes) == [long])
    #expect(try layer.snapshots().first(idOrName: String(hostBytes: long.prefix(255))) == nil)
  }

  /// One text in two encodings is two names.
  @Test func namesAreComparedByteByByte() throws {
    let chain = try ImageChain.over(
      MemoryStore(try Qcow2Bytes.judged().bytes), format: Qcow2Format.self, access: .readWrite)
    let layer = try #require(chain.top as? any SnapshotChanging)
    for name in ["\u{e9}", "e\u{301}"] {
      try layer.createSnapshot(named: name, at: SnapshotDate(seconds: 1, nanoseconds: 0))
    }
    let list = try layer.snapshots()
    #expect(list.first(idOrName: "e\u{301}")?.id == "3")
    #expect(list.first(id: "2", name: "\u{e9}")?.id == "2")
    #expect(list.first(id: "3", name: "\u{e9}") == nil)
  }

  /// Any single call of the file fails: an error, and the image is the old or the new one.
  @Test(arguments: ["create", "apply", "delete"])
  func anyFailedCallLeavesTheOldImageOrTheNew(_ change: String) throws {
    let good = try Qcow2Bytes.judged(["cluster_size=4k"]).bytes
    let (old, new) = (try SnapshotChange.state(good), try SnapshotChange.after(change, good))
    var number = 0
    while true {
      let memory = MemoryStore(good)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      let layer = try #require(chain.top as? any SnapshotChanging)
      store.arm(failing: number, of: [.read, .write, .writeZeros, .flush, .resize])
      var failed = false
      do throws(EngineError) { try SnapshotChange.perform(change, layer) } catch { failed = true }
      let wasReached = store.callCount > number
      store.arm(failing: nil)
      let after = try SnapshotChange.state(memory.snapshot)
      #expect(after == new || failed && after == old, "\(change): call \(number) failed")
      #expect(try SnapshotChange.isSound(memory.snapshot), "\(change): call \(number) failed")
      if !wasReached { break }
      number += Effort.current == .soak ? 1 : 1 + number / 3
    }
    #expect(number > 20)
  }
}
