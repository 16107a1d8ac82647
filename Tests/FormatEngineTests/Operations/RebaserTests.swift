import FormatEngine
import TestSupport
import Testing

/// An image reads over its new backing file as it did over the old one.
@Suite struct RebaserTests {
  private func rebase(
    _ overlay: ImageChain, onto name: String?, format: String, in folder: TemporaryFolder, compress: Bool
  ) throws {
    let backing = try name.map { (name) throws(EngineError) in
      try ImageOpener.open(folder.file(name), OpenOptions(format: format))
    }
    try Rebaser.copyDifferences(into: overlay, from: backing, compress: compress)
    try Rebaser.setBacking(of: overlay, to: name.map { BackingReference(name: $0, format: format) })
    try overlay.close()
  }

  @Test func imagesReadTheSameOverAnotherFile() throws {
    var random = SeededRandom.fromEnvironment(or: 311)
    for round in 0..<Effort.rounds(9) {
      try TemporaryFolder.with { folder in
        var old = JudgeChain(in: folder)
        for _ in 0..<1 + random.below(3) { try old.add("old", random: &random) }
        // The top must be one that can be rebased.
        if old.formats.last == "raw" { try old.add("old", random: &random) }
        let last = old.names.count - 1
        var target: (name: String, format: String)?
        switch random.below(4) {
        case 0: break
        case 1 where last > 0:
          let index = random.below(last)
          target = (old.names[index], old.formats[index])
        case let kind:
          var new = kind == 2 ? JudgeChain(in: folder, over: old) : JudgeChain(in: folder)
          let name = try new.add("new", random: &random)
          target = (name, new.formats.last ?? "qcow2")
        }
        let before = try old.content(last)
        let (chain, _) = try old.open()
        let compress = random.oneIn(3) && !Files.exists(folder.file("\(old.topName).data"))
        let story: Comment = "round \(round), \(random): \(old.topName) onto \(target?.name ?? "nothing")"
        try rebase(chain, onto: target?.name, format: target?.format ?? "", in: folder, compress: compress)
        #expect(try old.content(last) == before, story)
        #expect(try old.damage() == "", story)
      }
    }
  }

  /// Nothing is read of what both chains have below.
  @Test func sharedLayersAreNotCompared() throws {
    try TemporaryFolder.with { folder in
      let create = { (name: String, lower: String?) in
        let backing = lower.map { ["-b", $0, "-F", "qcow2"] } ?? []
        try ReferenceTool.qemuImg.run(
          ["create", "-q", "-f", "qcow2"] + backing + [name, "8M"], folder: folder.path
        ).expecting(0)
      }
      try create("base", nil)
      try ReferenceTool.io(["write -q -P 3 0 8M"], on: folder.file("base"), format: "qcow2")
      for name in ["a", "b"] { try create(name, "base") }
      try ReferenceTool.io(["write -q -P 4 1M 64k"], on: folder.file("a"), format: "qcow2")
      try ReferenceTool.io(["write -q -P 5 2M 64k"], on: folder.file("b"), format: "qcow2")
      try create("top", "a")
      let overlay = try ImageOpener.open(
        folder.file("top"), OpenOptions(format: "qcow2", access: .readWrite))
      let before = try overlay.readAll()
      // Damage that only reading finds: the shared clusters are cut off.
      let backing = try ImageOpener.open(folder.file("b"), OpenOptions(format: "qcow2"))
      let base = try #require(backing.members[1].file as? FileStore)
      let kept = try Files.read(base.path)
      try Files.write(Array(kept.prefix(5 * 65536 + 3 * 1024 * 1024)), to: base.path)
      try Rebaser.copyDifferences(into: overlay, from: backing)
      try Files.write(kept, to: base.path)
      try Rebaser.setBacking(of: overlay, to: BackingReference(name: "b", format: "qcow2"))
      try overlay.close()
      #expect(try ReferenceTool.content(of: folder.file("top"), format: "qcow2", in: folder) == before)
      let map = try ReferenceTool.map("top", format: "qcow2", folder: folder.path)
      let own = map.filter { $0.depth == 0 }
      #expect(own.map(\.start) == [1 << 20, 2 << 20] && own.allSatisfy { $0.length == 65536 })
    }
  }

  /// Version 2 has no marks for zeros: what was nothing becomes stored zeros where the new file has data.
  @Test(arguments: [false, true]) func anOldVersionStoresZeros(compress: Bool) throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 6, count: 1 << 20), to: "new")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "top", "2M", folder: folder.path)
      try ReferenceTool.io(["write -q -P 8 64k 10k"], on: folder.file("top"), format: "qcow2")
      let before = try ReferenceTool.content(of: folder.file("top"), format: "qcow2", in: folder)
      let overlay = try ImageOpener.open(
        folder.file("top"), OpenOptions(format: "qcow2", access: .readWrite))
      try rebase(overlay, onto: "new", format: "raw", in: folder, compress: compress)
      #expect(try ReferenceTool.content(of: folder.file("top"), format: "qcow2", in: folder) == before)
    }
  }
}
