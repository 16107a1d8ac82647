import TestSupport
import Testing

@testable import FormatEngine

/// L2 tables that stand in several snapshots: each is walked once, and counts for all of them.
@Suite struct Qcow2SharedTableTests {
  /// Five snapshots: the first three share all tables, the others one of the two each.
  private func makeImage(_ options: [String], in folder: TemporaryFolder) throws -> String {
    let image = folder.file("image.qcow2")
    try ReferenceTool.create(image, format: "qcow2", size: 1 << 30, options: options)
    for (number, writes) in [
      ["write -q -P 1 0 640k", "write -q -P 2 600M 640k"], [], [], ["write -q -P 3 64k 64k"],
      ["write -q -P 4 600M 64k"],
    ].enumerated() {
      if !writes.isEmpty { try ReferenceTool.io(writes, on: image, format: "qcow2") }
      try ReferenceTool.qemuImg("snapshot", "-c", "s\(number)", image)
    }
    try ReferenceTool.io(["write -q -P 5 128k 64k"], on: image, format: "qcow2")
    return image
  }

  private func expectSameVerdict(_ image: String, _ words: String) throws {
    let theirs = try ReferenceTool.check(image)
    var options = OpenOptions(format: "qcow2")
    options.isForInspection = true
    let chain = try ImageOpener.open(image, options)
    let checkable = try #require(chain.top as? any Checkable)
    let ours = try checkable.check(progress: .none)
    #expect(Int(ours.corruptions) == theirs.corruptions, "\(words): \(ours.findings)\n\(theirs.text)")
    #expect(Int(ours.leaks) == theirs.leaks, "\(words): \(ours.findings)\n\(theirs.text)")
  }

  @Test(arguments: [["cluster_size=64k"], ["cluster_size=4k", "refcount_bits=64"], ["extended_l2=on"]])
  func sharedTablesCountForEachOfTheirSnapshots(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = try makeImage(options, in: folder)
      try expectSameVerdict(image, "undamaged")
      let good = Qcow2Bytes(bytes: try Files.read(image))
      let l1 = Int(good.number(at: good.snapshotsOffset, width: 8))
      let table = Int(good.number(at: l1, width: 8) & 0x00ff_ffff_ffff_fe00)
      let entry = good.number(at: table, width: 8)
      let clusterSize = UInt64(1) << good.number(at: 20, width: 4)
      let damages: [(String, UInt64)] = [
        ("reserved bits", entry | 0x10), ("unaligned", entry | 0x200),
        ("past the end", 0x00ff_ff00_0000_0000),
        ("another cluster", entry + clusterSize), ("nothing", 0),
        ("packed", 0x4000_0000_0000_0000 | entry & 0xffff_ffff),
      ]
      for (words, value) in damages {
        try Files.write(good.with(value, at: table, width: 8).bytes, to: image)
        try expectSameVerdict(image, words)
      }
    }
  }

  /// More references than two bytes hold.
  @Test func manyReferencesAreCounted() throws {
    let counts = try Qcow2ClusterCounts(clusterCount: 4, maximumCount: .max)
    #expect(counts.addFast(65_000, to: 1))
    #expect(!counts.addFast(1000, to: 1), "it must not be counted halfway")
    #expect(counts[1] == 65_000)
    #expect(counts.add(1000, to: 1) == 0 && counts[1] == 66_000)
    #expect(counts.add(1, to: 1) == 0 && counts[1] == 66_001)
    let narrow = try Qcow2ClusterCounts(clusterCount: 4, maximumCount: 3)
    #expect(narrow.addFast(3, to: 0) && !narrow.addFast(1, to: 0))
    #expect(narrow.add(2, to: 0) == 2)
    #expect(narrow.add(5, to: 2) == 2 && narrow.countable(2) == 3)
  }
}
