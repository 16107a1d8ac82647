import FormatEngine
import TestSupport
import Testing

/// What the judge writes, we read as it does.
@Suite struct DifferentialReadTests {
  @Test(arguments: JudgeCase.all)
  func diskMapAndSnapshotsAreTheJudges(_ row: JudgeCase) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 61)
      let path = try row.recipe.make("image", in: folder, random: &random)
      let chain = try ImageOpener.open(path)
      let content = try ReferenceTool.content(of: path, format: "qcow2", in: folder)
      #expect(ModelDisk.firstDifference(try chain.readAll(), content) == nil, "\(random)")
      try expectJudgesMap(chain, path, folder)
      try expectJudgesSnapshots(chain, path, folder)
      if let checkable = chain.top as? any Checkable {
        let report = try checkable.check(progress: .none)
        #expect(report.corruptions == 0 && report.leaks == 0 && report.checkErrors == 0, "\(report.findings)")
      }
    }
  }

  private func expectJudgesMap(_ chain: ImageChain, _ path: String, _ folder: TemporaryFolder) throws {
    var ours: [MapEntry] = []
    try Mapper.walk(chain, in: 0..<chain.virtualSize) { ours.append($0) }
    let judges = try ReferenceTool.map(path, format: "qcow2", folder: folder.path)
    #expect(ours.count == judges.count)
    for (mine, entry) in zip(ours, judges) {
      let isSame =
        mine.start == entry.start && mine.length == entry.length && mine.depth == entry.depth
        && mine.isPresent == entry.isPresent && mine.isZero == entry.isZero && mine.isData == entry.isData
        && mine.offset == entry.offset
      guard isSame else {
        Issue.record("we: \(mine), the judge: \(entry)")
        return
      }
    }
  }

  private func expectJudgesSnapshots(_ chain: ImageChain, _ path: String, _ folder: TemporaryFolder) throws {
    let keeping = try #require(chain.top as? any SnapshotKeeping)
    for record in try keeping.snapshots() {
      let raw = folder.file("snapshot.raw")
      try ReferenceTool.qemuImg(
        "convert", "-f", "qcow2", "-O", "raw", "-l", "snapshot.name=\(record.name)", path, raw,
        folder: folder.path)
      let snapshot = chain.replacing(layerAt: 0, with: try keeping.openSnapshot(record))
      #expect(ModelDisk.firstDifference(try snapshot.readAll(), try Files.read(raw)) == nil, "\(record.name)")
      var position: UInt64 = 0
      for (start, found) in try snapshot.allExtents() {
        #expect(start == position)
        position += found.extent.length
      }
      #expect(position == record.virtualSize)
    }
  }

  @Test(arguments: ["zlib", "zstd"], [512, 65536, 2 << 20])
  func packedImageOfMixedContentIsRead(_ type: String, _ cluster: Int) throws {
    try TemporaryFolder.with { folder in
      let model = MixedContent.disk(byteCount: max(700_416, cluster * 2 + 3072))
      try folder.write(model.bytes, to: "source.raw")
      try ReferenceTool.qemuImg(
        "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=\(cluster),compression_type=\(type)",
        folder.file("source.raw"), folder.file("image"))
      let chain = try ImageOpener.open(folder.file("image"))
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      #expect(try chain.allExtents().contains { $0.located.extent.source == .compressed })
      var random = SeededRandom(seed: 3)
      for _ in 0..<40 {
        let range = random.range(in: model.byteCount, most: 9000)
        #expect(
          try chain.readBytes(at: UInt64(range.lowerBound), count: range.count)
            == model.read(at: range.lowerBound, count: range.count))
      }
    }
  }
}

/// A disk with zeros, text that packs well, and bytes that do not pack.
enum MixedContent {
  /// As long as a piece can be. Made once: without optimization it takes its time.
  private static let text: [UInt8] = {
    let words = Array("The quick brown fox jumps over the lazy dog. ".utf8)
    return (0...longest / words.count).reduce(into: []) { text, _ in text += words }
  }()
  private static let longest = 512 * 200

  static func disk(byteCount: Int, seed: UInt64 = 71) -> ModelDisk {
    var random = SeededRandom(seed: seed)
    var disk = ModelDisk(byteCount: byteCount)
    var position = 0
    while position < byteCount {
      let count = min(byteCount - position, 512 * (1 + random.below(longest / 512)))
      switch random.below(4) {
      case 0: break
      case 1: disk.write(random.bytes(count), at: position)
      case 2: disk.write(random.fill(count), at: position)
      default:
        disk.write(Array(text.prefix(count)), at: position)
      }
      position += count
    }
    return disk
  }
}
