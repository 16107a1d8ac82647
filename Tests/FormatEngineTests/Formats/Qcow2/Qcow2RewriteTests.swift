import Foundation
import TestSupport
import Testing

@testable import FormatEngine

/// Changes of the metadata as a whole, and of the first cluster: old or new, never a mixture.
@Suite struct Qcow2RewriteTests {
  private func image(_ options: [String: String], size: UInt64 = 1 << 20, in folder: TemporaryFolder) throws
    -> [UInt8]
  {
    var values = OptionValues(Qcow2Format.createOptions)
    for (name, text) in options { try values.set(name, to: text) }
    let path = folder.file("image")
    let request = CreateRequest(
      path: path, virtualSize: size, options: values, references: ReferenceOpener())
    try Qcow2Format.create(on: try FileStore.create(path, cache: .unflushed), request)
    return try Files.read(path)
  }

  private func layer(_ store: any ByteStore) throws -> Qcow2Layer {
    let request = LayerRequest(path: "image", access: .readWrite, references: ReferenceOpener())
    return try #require(try Qcow2Format.open(store, request) as? Qcow2Layer)
  }

  /// The first cluster spreads over several sectors when names are long; each crash state shows one of the names.
  @Test(arguments: [
    ["cluster_size": "64k"], ["cluster_size": "4k"], ["compat": "0.10"], ["cluster_size": "512"],
  ])
  func aCutWhileTheBackingNameChangesLeavesOneOfTheNames(_ options: [String: String]) throws {
    try TemporaryFolder.with { folder in
      let store = CrashStore(try image(options, in: folder))
      let long = options["cluster_size"] == "512" ? 100 : 900
      let names = [
        nil, "short", String(repeating: "a", count: long), "x", String(repeating: "b", count: long), nil,
      ]
      .map { $0.map { BackingReference(name: $0, format: "raw") } }
      var marks: [(events: Int, name: BackingReference?)] = [(0, nil)]
      do {
        let layer = try layer(store)
        for name in names.dropFirst() {
          try layer.setBacking(name)
          marks.append((store.eventCount, name))
          #expect(layer.backing == name)
        }
      }
      var random = SeededRandom.fromEnvironment(or: 61)
      try store.forEachCrashState(cuts: 0...store.eventCount, random: &random, randomCount: 4) { state in
        let now = try Qcow2Prologue.read(from: MemoryStore(state.bytes)).backing
        let last = marks.lastIndex { $0.events <= state.cut } ?? 0
        let allowed = [marks[last].name, marks[min(last + 1, marks.count - 1)].name]
        #expect(allowed.contains(now), "cut \(state.cut), \(state.story): \(now?.name ?? "none")")
      }
    }
  }

  /// What is not understood stays as it is, byte for byte.
  @Test func unknownExtensionsAndLaterHeaderFieldsAreKept() throws {
    try TemporaryFolder.with { folder in
      var bytes = try image([:], in: folder)
      // A header of 136 bytes with fields from a later version, and an extension that nobody knows.
      var prologue = try Qcow2Prologue.read(from: MemoryStore(bytes))
      prologue.header.headerLength = 136
      prologue.header.laterFields = (105..<136).map { UInt8($0) }
      prologue.extensions.all.append(.init(type: 0x1234_5678, content: Array("kept as it is".utf8)))
      bytes.replaceSubrange(0..<65536, with: [UInt8](repeating: 0, count: 65536))
      let head = try prologue.serialised()
      bytes.replaceSubrange(0..<head.count, with: head)
      let store = MemoryStore(bytes)
      try layer(store).setBacking(BackingReference(name: "base.raw", format: "raw"))
      let after = try Qcow2Prologue.read(from: store)
      #expect(after.header.laterFields == prologue.header.laterFields)
      #expect(after.extensions[0x1234_5678] == Array("kept as it is".utf8))
      #expect(
        after.extensions[Qcow2HeaderExtensions.Kind.featureNames] == Qcow2HeaderExtensions.knownFeatureNames)
      try layer(store).setBacking(nil)
      #expect(Array(store.snapshot[..<65536]) == Array(bytes[..<65536]))
    }
  }

  /// A host offset out of a damaged table must not ask for a table of exabytes.
  @Test func countsOfPlacesThatNoFileReachesAreRefused() throws {
    try TemporaryFolder.with { folder in
      let store = MemoryStore(try image([:], in: folder))
      let before = store.snapshot
      let layer = try layer(store)
      for cluster in [1 << 40, 1 << 55, UInt64.max >> 1] as [UInt64] {
        do throws(EngineError) {
          try layer.rewrite { (rewrite) throws(EngineError) in try rewrite.add(cluster..<cluster + 1) }
          Issue.record("cluster \(cluster) was counted")
        } catch { #expect(error.code == .tooLarge, "\(error.message)") }
      }
      #expect(store.snapshot == before)
    }
  }

  /// New counts and new tables appear together with the header's switch, or not at all.
  @Test(arguments: [
    ["cluster_size": "512"], ["cluster_size": "4k", "refcount_bits": "1"], [:], ["refcount_bits": "64"],
  ])
  func aCutDuringARewriteLeavesNoLeak(_ options: [String: String]) throws {
    try TemporaryFolder.with { folder in
      let store = CrashStore(try image(options, size: 300_000, in: folder))
      do {
        let layer = try layer(store)
        let chain = ImageChain(
          members: [ChainMember(layer: layer, file: store, path: "image", formatName: "qcow2")],
          access: .readWrite)
        try chain.writeBytes([UInt8](repeating: 7, count: 200_000), at: 1000)
        try chain.close()
        for round in 0..<3 {
          // The L1 table moves, and the whole refcount structure too.
          try layer.rewrite { (rewrite) throws(EngineError) in
            if round == 1 { try rewrite.startCountingAgain() }
            let header = rewrite.prologue.header
            let bytes = try rewrite.file.bytes(at: header.l1Offset, count: Int(header.l1Count) * 8)
            try rewrite.remove(rewrite.clusters(at: header.l1Offset, byteCount: UInt64(bytes.count)))
            rewrite.prologue.header.l1Offset = try rewrite.allocate(bytes: bytes)
          }
        }
      }
      var random = SeededRandom.fromEnvironment(or: 62)
      let start = store.events.firstIndex { if case .flush = $0 { true } else { false } } ?? 0
      let step = max(1, store.eventCount / 150)
      try store.forEachCrashState(
        cuts: stride(from: start, through: store.eventCount, by: step), random: &random
      ) {
        state in
        let report = try layer(MemoryStore(state.bytes)).check(progress: .none)
        #expect(report.corruptions == 0, "cut \(state.cut), \(state.story): \(report.findings.prefix(3))")
      }
      let path = try folder.write(store.content, to: "after")
      let verdict = try ReferenceTool.check(path, folder: folder.path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
      let content = try ReferenceTool.content(of: path, format: "qcow2", in: folder)
      #expect(content[1000..<201_000].holdsOnly(7))
    }
  }
}

extension Qcow2Rewrite {
  /// The same counts in a structure from nothing.
  fileprivate func startCountingAgain() throws(EngineError) {
    let end = try file.byteCount().dividedRoundingUp(by: geometry.clusterSize)
    let header = prologue.header
    var counts: [UInt64] = []
    for cluster in 0..<end { counts.append(try oldCount(of: cluster)) }
    let old = clusters(
      at: header.refcountTableOffset, byteCount: UInt64(header.refcountTableClusters) * geometry.clusterSize)
    let table = try file.bytes(at: header.refcountTableOffset, count: Int(geometry.clusterSize) * old.count)
    try startCounting(refcountOrder: header.refcountOrder)
    for index in stride(from: 0, to: table.count, by: 8) {
      let block = try table.parsed { (span) throws(EngineError) in try span.bigEndian(UInt64.self, at: index)
      }
      if block != 0 { counts[Int(block >> geometry.clusterBits)] = 0 }
    }
    for cluster in old { counts[Int(cluster)] = 0 }
    for (cluster, count) in counts.enumerated() where count > 0 {
      try set(UInt64(cluster)..<UInt64(cluster) + 1, to: count)
    }
  }
}
