import FormatEngine
import Foundation
import TestSupport
import Testing

/// What we create: the judge says that it is what was asked for.
struct CreatedCase: Sendable, CustomTestStringConvertible {
  var options: [String: String]
  var size: UInt64
  var hasBacking = false
  var testDescription: String {
    "\(size) \(options.sorted { $0.key < $1.key }.map { "\($0)=\($1)" })\(hasBacking ? " over raw" : "")"
  }

  static let all: [CreatedCase] =
    (9...21).map { CreatedCase(options: ["cluster_size": "\(1 << $0)"], size: 5_000_192) }
    + [0, 512, 1536, 65536, 1 << 30, 1 << 37].map { CreatedCase(options: [:], size: $0) }
    + ["0.10", "1.1"].map { CreatedCase(options: ["compat": $0], size: 1 << 20, hasBacking: true) }
    + (0...6).map { CreatedCase(options: ["refcount_bits": "\(1 << $0)"], size: 1 << 26) }
    + [
      CreatedCase(options: ["extended_l2": "on"], size: 1 << 22),
      CreatedCase(options: ["extended_l2": "on", "cluster_size": "16k"], size: 1 << 22, hasBacking: true),
      CreatedCase(options: ["compression_type": "zstd"], size: 1 << 22),
      CreatedCase(options: ["lazy_refcounts": "on"], size: 1 << 22),
      CreatedCase(options: ["data_file": "image.data"], size: 1 << 22),
      CreatedCase(options: ["data_file": "image.data", "data_file_raw": "on"], size: 1 << 22),
      CreatedCase(options: ["preallocation": "metadata"], size: 1 << 22),
      CreatedCase(options: ["preallocation": "metadata", "extended_l2": "on"], size: 1 << 22),
      CreatedCase(options: ["preallocation": "falloc"], size: 1 << 22),
      CreatedCase(options: ["preallocation": "full"], size: 1 << 22),
      CreatedCase(options: ["cluster_size": "512", "refcount_bits": "1"], size: 1 << 27),
      CreatedCase(options: ["cluster_size": "512", "refcount_bits": "64"], size: 1 << 27),
      CreatedCase(options: ["cluster_size": "2M"], size: 1 << 50),
    ]
}

/// What we write, the judge reads as it was meant.
@Suite struct DifferentialWriteTests {
  @Test(arguments: CreatedCase.all)
  func createdImageIsWhatWasAskedFor(_ row: CreatedCase) throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try create(row, path, folder)
      let verdict = try ReferenceTool.check(path, folder: folder.path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
      try expectInfo(row, path, folder)
      if row.size <= 1 << 27 {
        let model = row.hasBacking ? try Files.read(folder.file("base.raw")) : []
        let content = try ReferenceTool.content(of: path, format: "qcow2", in: folder)
        #expect(content.count == Int(row.size))
        #expect(ModelDisk.firstDifference(Array(content.prefix(model.count)), model) == nil)
        #expect(Array(content.dropFirst(model.count)).isZero)
      }
    }
  }

  private func create(_ row: CreatedCase, _ path: String, _ folder: TemporaryFolder) throws {
    var values = OptionValues(Qcow2Format.createOptions)
    for (name, text) in row.options { try values.set(name, to: text) }
    var backing: BackingReference?
    if row.hasBacking {
      var random = SeededRandom(seed: 5)
      try folder.write(random.bytes(70_144), to: "base.raw")
      backing = BackingReference(name: "base.raw", format: "raw")
    }
    let request = CreateRequest(
      path: path, virtualSize: row.size, backing: backing, options: values, references: ReferenceOpener())
    try Qcow2Format.create(on: try FileStore.create(path, cache: .unflushed), request)
  }

  private func expectInfo(_ row: CreatedCase, _ path: String, _ folder: TemporaryFolder) throws {
    let result = try ReferenceTool.qemuImg("info", "-f", "qcow2", "--output=json", path, folder: folder.path)
    let top = try #require(
      JSONSerialization.jsonObject(with: Foundation.Data(result.stdout)) as? [String: Any])
    let specific = try #require((top["format-specific"] as? [String: Any])?["data"] as? [String: Any])
    func number(_ table: [String: Any], _ key: String) -> UInt64? { (table[key] as? NSNumber)?.uint64Value }
    func flag(_ key: String) -> Bool { (specific[key] as? NSNumber)?.boolValue ?? false }
    #expect(number(top, "virtual-size") == row.size)
    let cluster = try row.options["cluster_size"].map { try SizeText.parse($0) } ?? 65536
    #expect(number(top, "cluster-size") == cluster)
    #expect(specific["compat"] as? String == row.options["compat"] ?? "1.1")
    #expect(number(specific, "refcount-bits") == UInt64(row.options["refcount_bits"] ?? "16"))
    #expect(flag("extended-l2") == (row.options["extended_l2"] == "on"))
    #expect(flag("lazy-refcounts") == (row.options["lazy_refcounts"] == "on"))
    #expect(flag("data-file-raw") == (row.options["data_file_raw"] == "on"))
    #expect(specific["data-file"] as? String == row.options["data_file"])
    #expect(specific["compression-type"] as? String == row.options["compression_type"] ?? "zlib")
    #expect(top["backing-filename"] as? String == (row.hasBacking ? "base.raw" : nil))
    #expect(top["backing-filename-format"] as? String == (row.hasBacking ? "raw" : nil))
    #expect(top["dirty-flag"] as? Bool == false)
  }

  @Test(arguments: ["zlib", "zstd"], [512, 4096, 65536, 2 << 20])
  func packedCopyIsTheJudgesSource(_ type: String, _ cluster: Int) throws {
    try convert(
      ["cluster_size": "\(cluster)", "compression_type": type], byteCount: max(700_416, 2 * cluster + 3072)
    ) {
      $0.compress = true
    }
  }

  @Test(arguments: [
    ["cluster_size": "512"], [:], ["compat": "0.10"], ["extended_l2": "on"], ["data_file": "image.data"],
  ])
  func plainCopyIsTheJudgesSource(_ options: [String: String]) throws {
    try convert(options, byteCount: 1_500_160) { $0.compress = false }
  }

  private func convert(_ options: [String: String], byteCount: Int, _ change: (inout ConvertOptions) -> Void)
    throws
  {
    try TemporaryFolder.with { folder in
      let model = MixedContent.disk(byteCount: byteCount)
      let source = try ImageOpener.open(
        try folder.write(model.bytes, to: "source.raw"), OpenOptions(format: "raw"))
      try create(CreatedCase(options: options, size: UInt64(byteCount)), folder.file("image"), folder)
      do {
        let target = try ImageOpener.open(
          folder.file("image"), OpenOptions(format: "qcow2", access: .readWrite))
        var convert = ConvertOptions()
        change(&convert)
        try Converter.convert(from: [source], to: target, convert)
        try target.flush()
        #expect(ModelDisk.firstDifference(try target.readAll(), model.bytes) == nil)
      }
      let verdict = try ReferenceTool.check(folder.file("image"), folder: folder.path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
      try ReferenceTool.qemuImg(
        "compare", "-f", "raw", "-F", "qcow2", folder.file("source.raw"), folder.file("image"),
        folder: folder.path)
    }
  }

  /// An image that both change in turn stays sound, with a snapshot taken in between.
  @Test(arguments: [
    (4096, "compat=1.1"), (65536, "extended_l2=on"), (512, "compat=0.10"), (65536, "compression_type=zstd"),
  ])
  func writingInTurnsWithTheJudgeKeepsTheImageSound(_ cluster: Int, _ option: String) throws {
    try TemporaryFolder.with { folder in
      let recipe = JudgeImage(
        size: 600_064, options: ["cluster_size=\(cluster)", option], cluster: cluster, writesCompressed: true,
        operationCount: 10)
      var random = SeededRandom.fromEnvironment(or: 81)
      let path = try recipe.make("image", in: folder, random: &random)
      for turn in 0..<3 {
        try ReferenceTool.qemuImg("snapshot", "-c", "turn \(turn)", path)
        let before = try ReferenceTool.content(of: path, format: "qcow2", in: folder)
        let row = ConformanceRow(
          name: "turns", format: "qcow2", size: 600_064, maker: .judge(recipe), isWritable: true)
        let fixture = Fixture(row: row, path: path, model: ModelDisk(before), folder: folder)
        do {
          let chain = try fixture.open(.readWrite)
          var writer = DiskWriter(fixture, seed: UInt64(90 + turn), unit: chain.top.clusterSize)
          for _ in 0..<15 { try writer.step(writer.nextStep(), on: chain) }
          try chain.close()
          try ConformanceTests.judge(fixture, writer.model, allowingLeaks: false)
        }
        // The snapshot still is what the disk was.
        let raw = folder.file("snapshot.raw")
        try ReferenceTool.qemuImg("convert", "-O", "raw", "-l", "snapshot.name=turn \(turn)", path, raw)
        #expect(ModelDisk.firstDifference(try Files.read(raw), before) == nil)
        try ReferenceTool.io(
          ["write -q -P \(turn + 1) 3000 200000", "write -q -z 300000 70000"], on: path, format: "qcow2")
        let verdict = try ReferenceTool.check(path)
        #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
      }
    }
  }
}
