import FormatEngine
import TestSupport
import Testing

/// A base reads as the chain above it did, and nothing of it is lost on the way.
@Suite struct CommitterTests {
  @Test func basesReadAsTheirChainsDid() throws {
    var random = SeededRandom.fromEnvironment(or: 301)
    for round in 0..<Effort.rounds(8) {
      try TemporaryFolder.with { folder in
        var made = JudgeChain(in: folder)
        for _ in 0..<2 + random.below(3) { try made.add("layer", random: &random) }
        let last = made.names.count - 1
        let index = random.oneIn(2) ? last - 1 : random.below(last)
        let (before, oldBase) = (try made.content(last), try made.content(index))
        let (chain, options) = try made.open()
        do {
          let base = try ImageOpener.reopenForWriting(chain, from: last - index, options)
          try Committer.commit(chain, at: last - index, into: base)
        }
        let story: Comment = "round \(round), \(random), base \(index) of \(last)"
        #expect(try made.content(index) == before + oldBase.dropFirst(before.count), story)
        if index == last - 1 {
          try Committer.empty(chain)
          #expect(try made.content(last) == before, story)
          let map = try ReferenceTool.map(made.topName, format: "qcow2", folder: folder.path)
          #expect(!map.contains { $0.depth == 0 && $0.isData }, story)
        } else {
          try chain.close()
        }
        #expect(try made.damage() == "", story)
      }
    }
  }

  /// An image that keeps what it holds goes on lying over the base that took it over, which is another one by the ids
  /// that both record.
  @Test(arguments: ["vdi", "vhdx", "vmdk", "vpc"])
  func anImageThatKeepsItsContentStaysReadable(_ format: String) throws {
    try TemporaryFolder.with { folder in
      let type = try #require(FormatCatalog.format(named: format) as? any CreatableFormat.Type)
      let size: UInt64 = 8 << 20
      let (base, top) = ("base.\(format)", "top.\(format)")
      for (name, backing) in [(base, nil), (top, BackingReference(name: base, format: format))] {
        let path = folder.file(name)
        try type.create(
          on: FileStore.create(path, cache: .unflushed),
          CreateRequest(
            path: path, virtualSize: size, backing: backing, options: OptionValues(type.createOptions),
            references: ReferenceOpener()))
      }
      let options = OpenOptions(format: format, access: .readWrite)
      var model = ModelDisk(byteCount: Int(size))
      for round in 1...3 {
        let chain = try ImageOpener.open(folder.file(top), options)
        let bytes = [UInt8](repeating: UInt8(round), count: 100_000)
        try chain.writeBytes(bytes, at: UInt64(round) << 20)
        model.write(bytes, at: round << 20)
        let lower = try ImageOpener.reopenForWriting(chain, from: 1, options)
        try Committer.commit(chain, at: 1, into: lower)
        try chain.close()
        for name in [top, base] {
          let content = try ImageOpener.open(folder.file(name), OpenOptions(format: format)).readAll()
          #expect(ModelDisk.firstDifference(Array(content.prefix(Int(size))), model.bytes) == nil, "\(name)")
        }
      }
    }
  }

  /// What is between the top and its base may be shorter than both: it hides the base with zeros.
  @Test func aShortLayerBetweenHidesTheBase() throws {
    try TemporaryFolder.with { folder in
      for (name, size) in [("base", 400_000), ("middle", 100_352), ("top", 300_032)] {
        let lower = ["middle": "base", "top": "middle"][name]
        let backing = lower.map { ["-b", $0, "-F", "qcow2"] } ?? []
        let create = ["create", "-q", "-f", "qcow2"] + backing + [name, "\(size)"]
        try ReferenceTool.qemuImg.run(create, folder: folder.path).expecting(0)
        if lower == nil {
          try ReferenceTool.io(["write -q -P 9 0 390k"], on: folder.file(name), format: "qcow2")
        }
      }
      let options = OpenOptions(format: "qcow2", access: .readWrite)
      let chain = try ImageOpener.open(folder.file("top"), options)
      let base = try ImageOpener.reopenForWriting(chain, from: 2, options)
      try Committer.commit(chain, at: 2, into: base)
      let content = try ReferenceTool.content(of: folder.file("base"), format: "qcow2", in: folder)
      #expect(content[..<100_352].holdsOnly(9))
      #expect(content[100_352..<300_032].holdsOnly(0))
      #expect(content[300_032..<390 * 1024].holdsOnly(9))
    }
  }

  /// A base that is longer below than itself must not show that when it grows.
  @Test func aBaseThatGrowsHidesWhatLiesBelowIt() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 500 * 1024), to: "raw")
      for (name, lower, format, size) in [
        ("base", "raw", "raw", "100000"), ("top", "base", "qcow2", "600064"),
      ] {
        try ReferenceTool.qemuImg(
          "create", "-q", "-f", "qcow2", "-b", lower, "-F", format, name, size, folder: folder.path)
      }
      let options = OpenOptions(format: "qcow2", access: .readWrite)
      let chain = try ImageOpener.open(folder.file("top"), options)
      let before = try chain.readAll()
      let base = try ImageOpener.reopenForWriting(chain, from: 1, options)
      try Committer.commit(chain, at: 1, into: base)
      #expect(try ReferenceTool.content(of: folder.file("base"), format: "qcow2", in: folder) == before)
      #expect(before[100_352...].holdsOnly(0))
    }
  }

  /// Whatever call fails, the base stays sound, and a second try makes it right.
  @Test func everyCallOfTheBaseFailsOnce() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "base", "600k", folder: folder.path)
      try ReferenceTool.io(["write -q -P 7 100k 200k"], on: folder.file("base"), format: "qcow2")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "700k", folder: folder.path)
      try ReferenceTool.io(
        ["write -q -P 1 0 5k", "write -q -z 128k 100k", "write -q -P 2 650k 50k"], on: folder.file("top"),
        format: "qcow2")
      let bytes = try Files.read(folder.file("base"))
      let chain = try ImageOpener.open(folder.file("top"), OpenOptions(format: "qcow2"))
      let before = try chain.readAll()
      var failing = 0
      while true {
        let store = MemoryStore(bytes)
        let fault = FaultStore(store)
        do {
          let base = try ImageChain.over(fault, format: Qcow2Format.self, access: .readWrite)
          fault.arm(failing: failing)
          if (try? Committer.commit(chain, at: 1, into: base)) != nil { break }
        }
        let again = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
        try Committer.commit(chain, at: 1, into: again)
        #expect(try again.readAll() == before, "call \(failing)")
        let report = try (again.top as? any Checkable)?.check(progress: .none)
        #expect(report?.corruptions == 0, "call \(failing): \(report?.findings.first ?? "")")
        failing += 3
      }
      #expect(failing > 20)
    }
  }
}
