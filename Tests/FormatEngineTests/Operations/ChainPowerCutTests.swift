import TestSupport
import Testing

@testable import FormatEngine

/// Power cuts while more than one file changes: all of them lose it at the same moment.
@Suite struct ChainPowerCutTests {
  private static let size = 600_064

  private func image(_ options: [String: String], over base: String?, in folder: TemporaryFolder) throws
    -> [UInt8]
  {
    var values = OptionValues(Qcow2Format.createOptions)
    for (name, text) in options { try values.set(name, to: text) }
    let path = folder.file("new")
    let request = CreateRequest(
      path: path, virtualSize: UInt64(Self.size),
      backing: base.map { BackingReference(name: $0, format: "qcow2") }, options: values,
      references: ReferenceOpener())
    try Qcow2Format.create(on: try FileStore.create(path, cache: .unflushed), request)
    return try Files.read(path)
  }

  private func member(_ store: any ByteStore, _ path: String, _ access: FileAccess = .readOnly) throws
    -> ChainMember
  {
    let request = LayerRequest(path: path, access: access, references: ReferenceOpener())
    return ChainMember(
      layer: try Qcow2Format.open(store, request), file: store, path: path, formatName: "qcow2")
  }

  /// Random writes, zeros and discards.
  private func fill(_ chain: ImageChain, _ model: inout ModelDisk, _ random: inout SeededRandom) throws {
    for _ in 0..<12 {
      let range = random.range(in: Self.size, most: 100_000, unit: 4096)
      if random.oneIn(4) {
        try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
        model.writeZeros(at: range.lowerBound, count: range.count)
      } else {
        let bytes = random.fill(range.count)
        try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
        model.write(bytes, at: range.lowerBound)
      }
    }
    try chain.close()
  }

  private func expectSound(_ chain: ImageChain, _ story: String) throws {
    for member in chain.members {
      let report = try #require(member.layer as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(member.path), \(story): \(report.findings.prefix(3))")
    }
  }

  private static let options: [[String: String]] = [
    ["cluster_size": "4k"], [:], ["extended_l2": "on", "cluster_size": "16k"], ["cluster_size": "512"],
  ]

  /// Whatever of a commit is on disk, the disk reads as before.
  @Test(arguments: options)
  func aCutDuringACommitLosesNothing(_ options: [String: String]) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 71)
      var model = ModelDisk(byteCount: Self.size)
      let (below, above) = (
        MemoryStore(try image(options, over: nil, in: folder)),
        MemoryStore(try image(options, over: "base", in: folder))
      )
      try fill(ImageChain(members: [member(below, "base", .readWrite)], access: .readWrite), &model, &random)
      try fill(
        ImageChain(members: [member(above, "top", .readWrite), member(below, "base")], access: .readWrite),
        &model, &random)
      let clock = CrashClock()
      let (base, top) = (CrashStore(below.snapshot, clock: clock), CrashStore(above.snapshot, clock: clock))
      do {
        let chain = ImageChain(
          members: [try member(top, "top", .readWrite), try member(base, "base")], access: .readWrite)
        let target = ImageChain(members: [try member(base, "base", .readWrite)], access: .readWrite)
        try Committer.commit(chain, at: 1, into: target)
        // The layer below was read before; what it knows of the file is no longer so.
        let after = ImageChain(
          members: [try member(top, "top", .readWrite), try member(base, "base")], access: .readWrite)
        try Committer.empty(after)
        #expect(ModelDisk.firstDifference(try target.readAll(), model.bytes) == nil)
      }
      let step = max(1, clock.now / Effort.rounds(60))
      for time in stride(from: 0, through: clock.now, by: step) {
        var bases: [CrashStore.CrashState] = []
        base.forEachCrashState(cuts: [base.eventCount(at: time)], random: &random) { bases.append($0) }
        var choice = random
        _ = random.next()
        try top.forEachCrashState(cuts: [top.eventCount(at: time)], random: &random) { state in
          let other = bases[choice.below(bases.count)]
          let story = "at \(time) of \(clock.now): top \(state.story), base \(other.story)"
          let chain = ImageChain(
            members: [
              try member(MemoryStore(state.bytes), "top"), try member(MemoryStore(other.bytes), "base"),
            ])
          #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "\(story)")
          try expectSound(chain, story)
        }
      }
    }
  }

  /// Whatever of a rebase is on disk, the image reads as before over the file that it names.
  @Test(arguments: options)
  func aCutDuringARebaseLosesNothing(_ options: [String: String]) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 72)
      var model = ModelDisk(byteCount: Self.size)
      var bases: [String: MemoryStore] = [:]
      for name in ["old", "new"] {
        let store = MemoryStore(try image(options, over: nil, in: folder))
        var content = ModelDisk(byteCount: Self.size)
        try fill(
          ImageChain(members: [member(store, name, .readWrite)], access: .readWrite), &content, &random)
        bases[name] = store
        if name == "old" { model = content }
      }
      let (old, new) = (try #require(bases["old"]), try #require(bases["new"]))
      let above = MemoryStore(try image(options, over: "old", in: folder))
      try fill(
        ImageChain(members: [member(above, "top", .readWrite), member(old, "old")], access: .readWrite),
        &model,
        &random)
      let top = CrashStore(above.snapshot)
      do {
        let overlay = ImageChain(
          members: [try member(top, "top", .readWrite), try member(old, "old")], access: .readWrite)
        try Rebaser.copyDifferences(into: overlay, from: ImageChain(members: [try member(new, "new")]))
        try Rebaser.setBacking(of: overlay, to: BackingReference(name: "new", format: "qcow2"))
      }
      var named: Set<String> = []
      let step = max(1, top.eventCount / Effort.rounds(60))
      let cuts = Array(stride(from: 0, to: top.eventCount, by: step)) + [top.eventCount]
      try top.forEachCrashState(cuts: cuts, random: &random) { state in
        let overlay = try member(MemoryStore(state.bytes), "top")
        let name = try #require(overlay.layer.backing?.name)
        named.insert(name)
        let chain = ImageChain(members: [overlay, try member(try #require(bases[name]), name)])
        let story = "cut \(state.cut) of \(top.eventCount), \(state.story), over \(name)"
        #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "\(story)")
        try expectSound(chain, story)
      }
      #expect(named == ["old", "new"])
    }
  }
}
