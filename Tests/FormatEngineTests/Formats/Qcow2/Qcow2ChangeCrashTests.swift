import FormatEngine
import TestSupport
import Testing

/// The power fails while snapshots or features change: what is left is the image before or after, without a leak.
@Suite struct Qcow2ChangeCrashTests {
  static let changes: [(name: String, options: [String])] = [
    ("create", ["cluster_size=64k"]), ("create", ["cluster_size=512", "refcount_bits=64"]),
    ("apply", ["cluster_size=4k"]), ("delete", ["cluster_size=4k"]), ("delete", ["compat=0.10"]),
    ("create", ["extended_l2=on"]),
    ("compat=0.10", ["cluster_size=4k"]), ("compat=1.1", ["cluster_size=4k", "compat=0.10"]),
    ("refcount_bits=2", ["cluster_size=512"]), ("refcount_bits=64,lazy_refcounts=on", ["cluster_size=4k"]),
  ]

  @Test(arguments: changes.indices)
  func aCutLeavesTheImageBeforeOrAfter(_ index: Int) throws {
    let (name, options) = Self.changes[index]
    let good = try Self.imageWithZeros(options)
    let store = CrashStore(good)
    let before = try SnapshotChange.state(good)
    do {
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      try AnyChange.perform(name, chain)
      try chain.close()
    }
    let after = try SnapshotChange.state(store.content)
    #expect(name.contains("=") ? after == before : after != before)
    var random = SeededRandom.fromEnvironment(or: 73)
    let seed = "\(random)"
    let step = max(1, store.eventCount / Effort.rounds(4))
    // The last events more closely: the header's switch is among them.
    let last = max(0, store.eventCount - 4)
    let cuts = Array(stride(from: 0, to: last, by: step)) + Array(last...store.eventCount)
    try store.forEachCrashState(cuts: cuts, random: &random, randomCount: 1) { state in
      let moment =
        "\(name) \(options): cut after \(state.cut) of \(store.eventCount), \(state.story), \(seed)"
      let now = try SnapshotChange.state(state.bytes)
      #expect(now == before || now == after, "\(moment)")
      #expect(try SnapshotChange.isSound(state.bytes), "\(moment)")
      if state.cut == store.eventCount { #expect(now == after, "\(moment)") }
    }
    try TemporaryFolder.with { folder in
      let verdict = try ReferenceTool.check(try folder.write(store.content, to: "image"))
      #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
    }
  }

  /// With a snapshot, and zero clusters of both kinds on either side of it.
  static func imageWithZeros(_ options: [String]) throws -> [UInt8] {
    let store = MemoryStore(try Qcow2Bytes.judged(options).bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    try chain.writeZeros(at: 128 << 10, count: 96 << 10)
    try chain.writeZeros(at: 512 << 10, count: 64 << 10)
    let layer = try #require(chain.top as? any SnapshotChanging)
    try layer.createSnapshot(named: "zeros", at: SnapshotDate(seconds: 1, nanoseconds: 0))
    try chain.writeBytes([UInt8](repeating: 9, count: 8 << 10), at: 132 << 10)
    try chain.close()
    return store.snapshot
  }
}

/// A change of the snapshots or, where it has an equals sign, an amendment.
enum AnyChange {
  static func perform(_ change: String, _ chain: ImageChain) throws {
    guard change.contains("=") else {
      return try SnapshotChange.perform(change, try #require(chain.top as? any SnapshotChanging))
    }
    var options = OptionValues(Qcow2Format.amendOptions)
    for item in change.split(separator: ",") {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      try options.set(String(parts[0]), to: String(parts[1]))
    }
    try chain.amend(options, AmendRequest())
  }
}
