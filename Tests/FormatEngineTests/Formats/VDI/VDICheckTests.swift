import FormatEngine
import TestSupport
import Testing

@Suite struct VDICheckTests {
  /// A kind of damage: what the map and the count become.
  struct Damage: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var entries: [UInt32]
    var count: UInt32
    var rooms = 3
    /// The judge finds it, too.
    var isJudged = true
    /// Nothing is lost by its repair.
    var isHarmless = false

    var image: VDIBytes {
      VDIBytes(blockSize: 1 << 20, entries: entries, rooms: rooms).with(388, count)
    }
  }

  private static let free = VDIBytes.free

  static let all = [
    Damage(testDescription: "sound", entries: [0, free, 2, 1], count: 3, isHarmless: true),
    Damage(testDescription: "count too high", entries: [0, free, 2, 1], count: 9, isHarmless: true),
    Damage(testDescription: "count too low", entries: [0, free, 2, 1], count: 1, isHarmless: true),
    Damage(testDescription: "count of 0", entries: [0, free, 2, 1], count: 0, isHarmless: true),
    Damage(testDescription: "two blocks in one room", entries: [0, 0, 2, 1], count: 4),
    Damage(testDescription: "three blocks in one room", entries: [1, 1, 1, free], count: 3, rooms: 2),
    Damage(testDescription: "entry out of range", entries: [0, 99, 2, 1], count: 3),
    Damage(testDescription: "largest entry", entries: [0, 0xffff_fffd, 2, 1], count: 3),
    Damage(
      testDescription: "entry past the end of the file", entries: [0, 3, 2, 1], count: 4, isJudged: false),
    Damage(
      testDescription: "room with too high a number", entries: [0, 1, 4, free], count: 2, rooms: 5,
      isHarmless: true),
    Damage(
      testDescription: "hole", entries: [0, free, 2, free], count: 2, isJudged: false, isHarmless: true),
    Damage(testDescription: "everything", entries: [7, 2, 2, 99], count: 77, isJudged: true),
  ]

  @Test(arguments: all) func findingsAreTheJudges(_ damage: Damage) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(damage.image.bytes, to: "disk.vdi")
      let report = try #require(try damage.image.open().top as? any Checkable).check(progress: .none)
      let judged = try ReferenceTool.check(path, format: "vdi")
      guard damage.isJudged else { return #expect(judged.corruptions < Int(report.corruptions)) }
      #expect(Int(report.corruptions) == judged.corruptions)
      for line in report.findings { #expect(judged.text.contains(line), "\(line) / \(judged.text)") }
    }
  }

  @Test(arguments: all) func repairMakesItSoundAndKeepsWhatCanBeRead(_ damage: Damage) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(damage.image.bytes, to: "disk.vdi")
      let before = Self.blocks(try ImageOpener.open(path))
      var options = OpenOptions(access: .readWrite)
      options.isForInspection = true
      for mode in [RepairMode.leaks, .all] {
        let layer = try #require(try ImageOpener.open(path, options).top as? any Repairable)
        let report = try layer.repair(mode, progress: .none)
        if mode == .leaks && !damage.isHarmless {
          #expect(report.corruptions > 0 && report.corruptionsFixed == 0)
          #expect(try Files.read(path) == damage.image.bytes)
        } else {
          #expect(report.corruptions == 0 && report.failure == nil)
        }
      }
      let judged = try ReferenceTool.check(path, format: "vdi")
      #expect(judged.corruptions == 0 && judged.checkErrors == 0, "\(judged.text)")
      let after = Self.blocks(try ImageOpener.open(path))
      for (index, old) in before.enumerated() { #expect(after[index] == old ?? 0, "block \(index)") }
      // It can be written to by both.
      try ReferenceTool.io((0..<4).map { "write -q -P \(0x60 + $0) \($0)M 1M" }, on: path, format: "vdi")
      #expect(Self.blocks(try ImageOpener.open(path)) == [0x60, 0x61, 0x62, 0x63])
    }
  }

  /// The first byte of each block, nil where it cannot be read.
  private static func blocks(_ chain: ImageChain) -> [UInt8?] {
    (0..<4).map { try? chain.readBytes(at: $0 << 20, count: 1).first }
  }

  /// A small file that claims a large disk does not grow, and is not walked for long.
  @Test func hopelessMapIsLeftAlone() throws {
    var image = VDIBytes(entries: [0])
    image.set(384, 1 << 22)
    image.set64(368, 1 << 34)
    image.set(344, 512 + (4 << 22))
    let store = MemoryStore(image.bytes + [UInt8](repeating: 0, count: 4 << 22))
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite, isForInspection: true)
    let size = store.snapshot.count
    try Deadline.within(seconds: 30, "check") {
      let report = try #require(chain.top as? any Repairable).repair(.all, progress: .none)
      #expect(report.failure != nil)
    }
    #expect(store.snapshot.count == size)
  }
}
