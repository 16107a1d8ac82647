import FormatEngine
import Synchronization
import TestSupport
import Testing

/// Snapshots come and go under those who read others and write to the disk, as in a mount.
@Suite struct Qcow2SnapshotStressTests {
  static let recipes: [[String]] = [
    ["cluster_size=4096"], ["cluster_size=65536"], ["cluster_size=16384,extended_l2=on"],
    ["cluster_size=4096,lazy_refcounts=on"],
  ]

  @Test(arguments: recipes)
  func snapshotsComeAndGoUnderReadersAndWriters(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      let scene = try Scene(in: folder, options)
      let complaints = Threads.run(6) { number in
        do {
          switch number {
          case 0: try scene.changeSnapshots()
          case 1, 2: try scene.write(number - 1)
          case 3: try scene.readKeptSnapshot()
          case 4: try scene.openSnapshots()
          default: try scene.readQuietPart()
          }
          return nil
        } catch {
          scene.stop()
          return "thread \(number): \(error)"
        }
      }
      #expect(complaints.isEmpty)
      try scene.finish()
    }
  }
}

/// What one thread has written.
private final class WrittenPart: Sendable {
  let model: Guarded<ModelDisk>

  init(_ bytes: [UInt8]) { model = Guarded(ModelDisk(bytes)) }
}

/// A qcow2 image whose first and second third are each written by one thread; nobody writes to the last third.
private final class Scene: Sendable {
  private static let third = 2 << 20
  private static let size = 3 * third
  private let path: String
  private let folder: TemporaryFolder
  private let chain: ImageChain
  private let layer: any SnapshotChanging
  private let kept: SnapshotRecord
  /// The disk when `kept` was taken; the last third stays so.
  private let first: [UInt8]
  private let parts: [WrittenPart]
  private let isOver = Atomic(false)

  init(in folder: TemporaryFolder, _ options: [String]) throws {
    self.folder = folder
    path = folder.file("image")
    var random = SeededRandom.fromEnvironment(or: 601)
    let raw = try folder.write(random.bytes(Self.size / 2) + random.bytes(Self.size / 2), to: "raw")
    // Clusters that are packed, several in one.
    _ = try ReferenceTool.qemuImg.run(
      ["convert", "-c", "-O", "qcow2", "-o", options[0], raw, path]
    ).expecting(0)
    first = try Files.read(raw)
    var opening = OpenOptions(format: "qcow2", access: .readWrite)
    opening.cache = .unflushed
    chain = try ImageOpener.open(path, opening)
    layer = try #require(chain.top as? any SnapshotChanging)
    kept = try layer.createSnapshot(named: "kept", at: SnapshotDate(seconds: 1, nanoseconds: 0))
    parts = (0..<2).map { [first] in WrittenPart(Array(first[$0 * Self.third..<($0 + 1) * Self.third])) }
  }

  func stop() { isOver.store(true, ordering: .relaxed) }
  private var goesOn: Bool { !isOver.load(ordering: .relaxed) }

  private func view(_ record: SnapshotRecord) throws -> ImageChain {
    chain.replacing(layerAt: 0, with: try layer.openSnapshot(record))
  }

  /// What a snapshot holds is the same when it is taken and when it goes.
  func changeSnapshots() throws {
    defer { stop() }
    var random = SeededRandom.fromEnvironment(or: 602)
    var taken: [(record: SnapshotRecord, content: [UInt8])] = []
    for round in 0..<Effort.rounds(8) {
      let record = try chain.changingWhole { () throws(EngineError) in
        try layer.createSnapshot(named: "s\(round)", at: SnapshotDate(seconds: 2, nanoseconds: 0))
      }
      taken.append((record, try view(record).readAll()))
      if round == 3 { try chain.resize(to: UInt64(Self.size) + (1 << 20)) }
      if round == 6 { try chain.resize(to: UInt64(Self.size)) }
      guard taken.count > 3 else { continue }
      let old = taken.remove(at: random.below(taken.count))
      let content = try view(old.record).readAll()
      guard content == old.content else {
        let place = ModelDisk.firstDifference(content, old.content).map { "\($0)" } ?? "its size"
        throw TestFailure("\(old.record.name) changed at \(place)")
      }
      try chain.changingWhole { () throws(EngineError) in try layer.deleteSnapshot(old.record) }
    }
  }

  func write(_ number: Int) throws {
    var random = SeededRandom(seed: UInt64(700 + number))
    let start = number * Self.third
    while goesOn {
      let range = random.range(in: Self.third, most: 100_000, unit: 4096)
      let (offset, count) = (UInt64(start + range.lowerBound), UInt64(range.count))
      try parts[number].model.withLock { model in
        switch random.below(8) {
        case 0: try chain.flush()
        case 1, 2:
          try chain.writeZeros(at: offset, count: count)
          model.writeZeros(at: range.lowerBound, count: range.count)
        case 3:
          // What it frees reads as zeros, what it keeps stays: found out by reading.
          try chain.discard(at: offset, count: count)
          model.write(try chain.readBytes(at: offset, count: range.count), at: range.lowerBound)
        case 4:
          guard
            try chain.readBytes(at: offset, count: range.count)
              == model.read(at: range.lowerBound, count: range.count)
          else { throw TestFailure("the disk is wrong in \(offset) + \(count)") }
        default:
          let bytes = random.bytes(range.count)
          try chain.writeBytes(bytes, at: offset)
          model.write(bytes, at: range.lowerBound)
        }
      }
    }
  }

  func readKeptSnapshot() throws {
    var random = SeededRandom(seed: 800)
    let snapshot = try view(kept)
    while goesOn {
      let range = random.range(in: Self.size, most: 200_000)
      guard try snapshot.readBytes(at: UInt64(range.lowerBound), count: range.count) == Array(first[range])
      else { throw TestFailure("the kept snapshot is wrong in \(range)") }
    }
  }

  /// The list, and tables that are read for the first time.
  func openSnapshots() throws {
    var random = SeededRandom(seed: 900)
    while goesOn {
      guard try layer.snapshots().contains(kept) else { throw TestFailure("the kept snapshot is not listed") }
      let range = random.range(in: Self.size, most: 20_000)
      guard try view(kept).readBytes(at: UInt64(range.lowerBound), count: range.count) == Array(first[range])
      else { throw TestFailure("the kept snapshot, newly opened, is wrong in \(range)") }
    }
  }

  /// By another chain over the layer that is written to.
  func readQuietPart() throws {
    var random = SeededRandom(seed: 1000)
    let views = [chain.lower(from: 0), chain.delta(at: 0), chain]
    while goesOn {
      let range = random.range(in: Self.third, most: 100_000)
      let start = 2 * Self.third + range.lowerBound
      guard
        try views[random.below(3)].readBytes(at: UInt64(start), count: range.count)
          == Array(first[start..<start + range.count])
      else { throw TestFailure("what nobody writes to is wrong at \(start)") }
    }
  }

  func finish() throws {
    let disk =
      parts[0].model.withLock { $0.bytes } + parts[1].model.withLock { $0.bytes } + first[(2 * Self.third)...]
    #expect(ModelDisk.firstDifference(try chain.readAll(), disk) == nil)
    try chain.close()
    let verdict = try ReferenceTool.check(path)
    #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
    #expect(
      ModelDisk.firstDifference(try ReferenceTool.content(of: path, format: "qcow2", in: folder), disk) == nil
    )
    let raw = folder.file("kept.raw")
    _ = try ReferenceTool.qemuImg.run(
      ["convert", "-l", "snapshot.name=kept", "-f", "qcow2", "-O", "raw", path, raw]
    ).expecting(0)
    #expect(ModelDisk.firstDifference(try Files.read(raw), first) == nil)
  }
}
