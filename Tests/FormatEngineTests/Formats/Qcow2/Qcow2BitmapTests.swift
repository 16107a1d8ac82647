import TestSupport
import Testing

@testable import FormatEngine

/// Bitmaps that the judge makes are read, those that are made here are read by the judge.
@Suite struct Qcow2BitmapTests {
  static let options = ["cluster_size=64k", "cluster_size=512", "cluster_size=2M", "extended_l2=on"]
  /// Not a whole number of granules.
  static let size = 3 * 1_048_576 + 512

  @Test(arguments: options)
  func bitsOfTheJudgeAreRead(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: options, size: Self.size)
      try ReferenceTool.io(
        ["write -q 1000 10", "write -q 1M 700k", "discard -q 2M 3k", "write -q -z 3145728 512"],
        on: image.path, format: "qcow2")
      let chain = try image.open(.readOnly)
      for name in BitmapImage.names {
        #expect(try chain.dirtyRuns(name) == image.judgedRuns(name), "\(name)")
      }
      #expect(try chain.dirtyRuns("fine").first == 512..<1024)
      #expect(try chain.dirtyRuns("off") == [])
    }
  }

  /// A session of ours, then another: the judge finds dirty what was touched, and nothing else.
  @Test(arguments: options.filter { $0 != "cluster_size=2M" })
  func whatIsWrittenHereIsRecorded(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: options, size: Self.size)
      var random = SeededRandom.fromEnvironment(or: 72)
      var touched: [Range<UInt64>] = []
      for _ in 0..<2 {
        let chain = try image.open()
        touched += try chain.change(&random, count: 4)
        #expect(try image.records().map(\.isInconsistent) == [true, true, true, false])
        try chain.flush()
        #expect(try image.records().map(\.isInconsistent) == [true, true, true, false])
        #expect(try chain.bitmapLayer.bitmaps().allSatisfy { !$0.isInconsistent })
        try chain.close()
        #expect(try image.records().allSatisfy { !$0.isInconsistent })
      }
      for (name, granularity) in zip(BitmapImage.names, BitmapImage.granularities) {
        let expected =
          name == "off" ? [] : try granules(touched, granularity, size: UInt64(Self.size))
        #expect(try image.judgedRuns(name) == expected, "\(name), \(random)")
      }
      try image.expectSound()
    }
  }

  @Test func compressedClustersAreRecorded() throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, size: Self.size)
      let source = ImageChain(
        members: [
          try ImageChain.over(
            MemoryStore([UInt8](repeating: 7, count: Self.size)), format: RawFormat.self
          ).members[0]
        ])
      let target = try image.open()
      var options = ConvertOptions()
      options.compress = true
      try Converter.convert(from: [source], to: target, options)
      try target.close()
      #expect(try image.judgedRuns("fine") == [0..<UInt64(Self.size)])
      try image.expectSound()
    }
  }

  /// Reading, and a session without a single write, leave the file as it is.
  @Test func withoutWritesNothingIsMarked() throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, size: Self.size)
      let before = try Files.read(image.path)
      let chain = try image.open()
      _ = try chain.readAll()
      try chain.flush()
      try chain.close()
      #expect(try Files.read(image.path) == before)
    }
  }

  @Test func aSessionThatIsNotClosedLeavesBitmapsThatCanOnlyBeRemoved() throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, size: Self.size)
      do {
        let chain = try image.open()
        try chain.writeBytes([1, 2, 3], at: 70_000)
        try chain.flush()
      }
      #expect(try image.records().map(\.isInconsistent) == [true, true, true, false])
      let layer = try image.open().bitmapLayer
      #expect(throws: EngineError.self) {
        try layer.changeBitmaps { editor throws(EngineError) in try editor.clear("fine") }
      }
      #expect(throws: EngineError.self) {
        try layer.changeBitmaps { editor throws(EngineError) in try editor.merge("fine", into: "off") }
      }
      #expect(throws: EngineError.self) { try layer.forEachDirtyRun(of: "fine") { _ in } }
      try image.expectSound()
      try layer.changeBitmaps { editor throws(EngineError) in
        for name in ["fine", "middle", "coarse"] { try editor.remove(name) }
      }
      #expect(try image.records().map(\.name) == ["off"])
      try image.expectSound()
    }
  }

  /// The same changes by us and by the judge give the same bits.
  @Test(arguments: ["cluster_size=64k", "cluster_size=512"])
  func mergesAreTheJudges(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: options, size: Self.size)
      try ReferenceTool.io(
        ["write -q 1000 10", "write -q 1M 700k", "write -q 3145728 512"], on: image.path, format: "qcow2")
      let copy = folder.file("copy")
      try Files.write(Files.read(image.path), to: copy)
      for (source, target) in [("fine", "off"), ("coarse", "fine"), ("middle", "new")] {
        try ReferenceTool.qemuImg(
          "bitmap", target == "new" ? "--add" : "--enable", "--merge", source, copy, target)
      }
      try ReferenceTool.qemuImg("bitmap", "--clear", copy, "middle")
      let chain = try image.open()
      try chain.bitmapLayer.changeBitmaps { editor throws(EngineError) in
        try editor.merge("fine", into: "off")
        try editor.setEnabled("off", to: true)
        try editor.merge("coarse", into: "fine")
        try editor.add("new")
        try editor.merge("middle", into: "new")
        try editor.clear("middle")
      }
      try chain.close()
      for name in BitmapImage.names + ["new"] {
        #expect(try image.judgedRuns(name) == ReferenceTool.dirtyRuns(of: name, in: copy), "\(name)")
      }
      try image.expectSound()
    }
  }

  @Test func aBitmapOfAnotherImageIsMergedWhereTheDisksAreAsLarge() throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, size: Self.size)
      let small = try BitmapImage(in: folder, "small", size: 65536)
      let same = try BitmapImage(in: folder, "same", options: "cluster_size=512", size: Self.size)
      try ReferenceTool.io(["write -q 1M 700k"], on: same.path, format: "qcow2")
      let (other, wrong) = (try same.open(.readOnly).top, try small.open(.readOnly).top)
      try image.open().bitmapLayer.changeBitmaps { editor throws(EngineError) in
        try editor.merge("fine", of: other, into: "coarse")
      }
      #expect(try image.judgedRuns("coarse") == [1 << 20..<1_769_472])
      #expect(throws: EngineError.self) {
        try image.open().bitmapLayer.changeBitmaps { editor throws(EngineError) in
          try editor.merge("fine", of: wrong, into: "coarse")
        }
      }
      try image.expectSound()
    }
  }

  /// All bits of a cluster need no cluster: the judge agrees.
  @Test func fullPartsAreStoredAsOnes() throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: "cluster_size=512", size: 8 << 20)
      let chain = try image.open()
      try chain.discard(at: 0, count: 8 << 20)
      try chain.close()
      #expect(try image.judgedRuns("fine") == [0..<8 << 20])
      #expect(try image.open(.readOnly).dirtyRuns("fine") == [0..<8 << 20])
      try image.expectSound()
      let again = try image.open()
      try again.bitmapLayer.changeBitmaps { editor throws(EngineError) in try editor.clear("fine") }
      #expect(try image.judgedRuns("fine") == [])
      try image.expectSound()
    }
  }

  /// 16 bitmaps that come and go, with names as long as they may be.
  @Test func theListGrowsAndShrinks() throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: "cluster_size=512", size: 1 << 20)
      let names = (0..<12).map { "\($0)-" + String(repeating: "ä", count: 510) }
      let layer = try image.open().bitmapLayer
      try layer.changeBitmaps { editor throws(EngineError) in
        for name in names { try editor.add(name, granularity: 1 << 31, isEnabled: false) }
      }
      try image.expectSound("12 more")
      #expect(try image.records().map(\.name) == BitmapImage.names + names)
      try layer.changeBitmaps { editor throws(EngineError) in
        for name in names + BitmapImage.names { try editor.remove(name) }
      }
      try image.expectSound("none")
      #expect(try image.records() == [])
      let header = try Files.read(image.path)[88..<96]
      #expect(header.holdsOnly(0))
    }
  }

  @Test(arguments: [
    ("cluster_size=64k", 5 << 20), ("cluster_size=512", 1 << 20), ("cluster_size=512", 2_621_952),
  ])
  func bitmapsFollowTheSizeOfTheDisk(_ options: String, _ newSize: Int) throws {
    try TemporaryFolder.with { folder in
      let image = try BitmapImage(in: folder, options: options, size: Self.size)
      try ReferenceTool.io(["write -q 900k 2100k"], on: image.path, format: "qcow2")
      let copy = folder.file("copy")
      try Files.write(Files.read(image.path), to: copy)
      try ReferenceTool.qemuImg("resize", "-q", "--shrink", copy, "\(newSize)")
      let chain = try image.open()
      try chain.resize(to: UInt64(newSize))
      try chain.close()
      for name in BitmapImage.names {
        #expect(try image.judgedRuns(name) == ReferenceTool.dirtyRuns(of: name, in: copy), "\(name)")
      }
      try image.expectSound()
    }
  }
}
