import FormatEngine
import TestSupport
import Testing

/// A qcow2 image and models of its disk and of each of its snapshots, changed alike at random.
struct SnapshotfulDisk {
  private let path: String
  private let recipe: JudgeImage
  private var random: SeededRandom
  private var chain: ImageChain
  private var disk: ModelDisk
  private var snapshots: [(name: String, disk: ModelDisk)] = []
  private var made = 0
  private var story: [String] = []

  init(_ path: String, _ recipe: JudgeImage, _ random: SeededRandom) throws {
    (self.path, self.recipe, self.random) = (path, recipe, random)
    chain = try Self.open(path)
    disk = ModelDisk(try chain.readAll())
  }

  private static func open(_ path: String) throws -> ImageChain {
    var options = OpenOptions(format: "qcow2", access: .readWrite)
    options.cache = .unflushed
    return try ImageOpener.open(path, options)
  }

  mutating func reopen() throws { chain = try Self.open(path) }
  mutating func close() throws { try chain.close() }

  private func layer() throws -> any SnapshotChanging { try #require(chain.top as? any SnapshotChanging) }

  private func record(_ name: String) throws -> SnapshotRecord {
    try #require(try layer().snapshots().first { $0.name == name })
  }

  mutating func step() throws {
    switch random.below(10) {
    case 0, 1: try create()
    case 2 where !snapshots.isEmpty: try apply()
    case 3 where !snapshots.isEmpty: try delete()
    default: for _ in 0..<1 + random.below(3) { try change() }
    }
    let seed = "\(random) after \(story)"
    #expect(ModelDisk.firstDifference(try chain.readAll(), disk.bytes) == nil, "\(seed)")
    for snapshot in snapshots {
      let layer = try layer().openSnapshot(try record(snapshot.name))
      let content = try chain.replacing(layerAt: 0, with: layer).readAll()
      #expect(ModelDisk.firstDifference(content, snapshot.disk.bytes) == nil, "\(snapshot.name), \(seed)")
    }
    try chain.flush()
    // Of an image that is marked as being in use the counts may stay behind.
    guard !recipe.options.contains("lazy_refcounts=on") else { return }
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0 && report.leaks == 0, "\(report.findings.prefix(3)), \(seed)")
  }

  private mutating func change() throws {
    let range = random.range(in: disk.byteCount, most: 3 * max(recipe.cluster, 4096), unit: recipe.cluster)
    story.append("change \(range)")
    if random.oneIn(3) {
      try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
      disk.writeZeros(at: range.lowerBound, count: range.count)
    } else if random.oneIn(4) {
      try chain.discard(at: UInt64(range.lowerBound), count: UInt64(range.count))
      disk.write(
        try chain.readBytes(at: UInt64(range.lowerBound), count: range.count), at: range.lowerBound)
    } else {
      let bytes = random.fill(range.count)
      try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
      disk.write(bytes, at: range.lowerBound)
    }
  }

  private mutating func create() throws {
    made += 1
    let name = "snapshot \(made)"
    story.append(name)
    do throws(EngineError) {
      try chain.changingWhole { () throws(EngineError) in
        guard let layer = chain.top as? any SnapshotChanging else { return }
        try layer.createSnapshot(named: name, at: SnapshotDate(seconds: Int64(made), nanoseconds: 0))
      }
      snapshots.append((name, disk))
    } catch {
      // Two or four bits are soon full; the others never here.
      guard error.code == .tooLarge, recipe.options.contains(where: { $0.hasPrefix("refcount_bits=") }) else {
        throw error
      }
    }
  }

  private mutating func apply() throws {
    let index = random.below(snapshots.count)
    story.append("apply \(snapshots[index].name)")
    try layer().applySnapshot(try record(snapshots[index].name))
    disk = snapshots[index].disk
  }

  private mutating func delete() throws {
    let index = random.below(snapshots.count)
    story.append("delete \(snapshots[index].name)")
    try layer().deleteSnapshot(try record(snapshots[index].name))
    snapshots.remove(at: index)
  }

  /// The judge writes, makes a snapshot, deletes one of ours and goes back to another.
  mutating func letTheJudgeChange(_ round: Int) throws {
    let name = "judge \(round)"
    story.append(name)
    let start = random.below(disk.byteCount / 1024) * 512
    try ReferenceTool.io(["write -q -P \(round + 1) \(start) 70000"], on: path, format: "qcow2")
    disk.write([UInt8](repeating: UInt8(round + 1), count: 70000), at: start)
    try ReferenceTool.qemuImg("snapshot", "-c", name, path)
    snapshots.append((name, disk))
    try ReferenceTool.qemuImg("snapshot", "-d", snapshots.removeFirst().name, path)
    if let other = snapshots.first, round % 2 == 1 {
      try ReferenceTool.qemuImg("snapshot", "-a", other.name, path)
      disk = other.disk
    }
  }

  /// The judge finds no damage, and reads the disk and every snapshot as they are to be.
  func judge(_ folder: TemporaryFolder) throws {
    let verdict = try ReferenceTool.check(path, folder: folder.path)
    #expect(
      verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text) \(story)")
    let content = try ReferenceTool.content(of: path, format: "qcow2", in: folder)
    #expect(ModelDisk.firstDifference(content, disk.bytes) == nil, "\(story)")
    let raw = folder.file("snapshot.raw")
    for snapshot in snapshots {
      try ReferenceTool.qemuImg(
        "convert", "-f", "qcow2", "-O", "raw", "-l", snapshot.name, path, raw, folder: folder.path)
      let content = try Files.read(raw)
      #expect(ModelDisk.firstDifference(content, snapshot.disk.bytes) == nil, "\(snapshot.name) \(story)")
    }
  }
}

/// One change of the snapshots of a small image that has the snapshot "before", and what is left by it.
enum SnapshotChange {
  static func perform(_ change: String, _ layer: any SnapshotChanging) throws(EngineError) {
    let records = try layer.snapshots()
    switch change {
    case "create": try layer.createSnapshot(named: "new", at: SnapshotDate(seconds: 1, nanoseconds: 0))
    case "apply": try layer.applySnapshot(records[0])
    default: try layer.deleteSnapshot(records[0])
    }
  }

  /// All that can be read of an image.
  struct State: Equatable {
    var disk: [UInt8]
    var snapshots: [SnapshotRecord]
    var snapshotDisks: [[UInt8]]

    /// Bytes are compared by the C library: tests are built without optimization.
    static func == (a: State, b: State) -> Bool {
      let disks = zip([a.disk] + a.snapshotDisks, [b.disk] + b.snapshotDisks)
      return a.snapshots == b.snapshots && disks.allSatisfy { ModelDisk.firstDifference($0, $1) == nil }
    }
  }

  static func state(_ bytes: [UInt8]) throws -> State {
    let chain = try Qcow2Bytes(bytes: bytes).open()
    let layer = try #require(chain.top as? any SnapshotKeeping)
    var state = State(disk: try chain.readAll(), snapshots: try layer.snapshots(), snapshotDisks: [])
    for record in state.snapshots {
      let snapshot = chain.replacing(layerAt: 0, with: try layer.openSnapshot(record))
      state.snapshotDisks.append(try snapshot.readAll())
    }
    return state
  }

  static func after(_ change: String, _ bytes: [UInt8]) throws -> State {
    let store = MemoryStore(bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    try perform(change, try #require(chain.top as? any SnapshotChanging))
    return try state(store.snapshot)
  }

  static func isSound(_ bytes: [UInt8]) throws -> Bool {
    let chain = try Qcow2Bytes(bytes: bytes).open(isForInspection: true)
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    return report.corruptions == 0 && report.leaks == 0 && report.checkErrors == 0
  }
}
