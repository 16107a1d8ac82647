import FormatEngine
import TestSupport

/// A recipe for an image that the judge makes, with random content of every kind in it.
struct JudgeImage: Sendable {
  var format = "qcow2"
  var size: Int
  /// As `qemu-img create -o` takes them.
  var options: [String] = []
  /// Bytes of its cluster, for the shapes of the writes.
  var cluster: Int
  /// How many files lie below it; each with a cluster size of its own.
  var depth = 0
  /// The file at the bottom is raw, and shorter than the disk.
  var hasShortRawBase = false
  /// The file below it is of the same format, and shorter than the disk.
  var hasShortOwnBase = false
  var writesCompressed = false
  /// Internal snapshots, taken between writes.
  var snapshotCount = 0
  /// Enabled bitmaps, there from the start, with bits for what is written.
  var bitmapCount = 0
  var operationCount = 24
  /// Of an encrypted image.
  var passphrase: String?

  /// Makes `name` in a folder (and the files that it needs) and gives its path.
  func make(_ name: String, in folder: TemporaryFolder, random: inout SeededRandom) throws -> String {
    var base: (name: String, format: String)?
    if hasShortRawBase {
      try folder.write(random.bytes(size / 2) + random.fill(1024), to: "base.raw")
      base = ("base.raw", "raw")
    }
    if hasShortOwnBase {
      try ReferenceTool.makeBase("base.\(format)", format, random.bytes(size / 2), in: folder)
      base = ("base.\(format)", format)
    }
    for level in stride(from: depth, to: 0, by: -1) {
      let lower = JudgeImage(
        size: size, options: ["cluster_size=\(level % 2 == 0 ? 4096 : 65536)"], cluster: 65536)
      base = (try lower.makeOne("layer\(level).qcow2", in: folder, base, &random), "qcow2")
    }
    return folder.file(try makeOne(name, in: folder, base, &random))
  }

  private func makeOne(
    _ name: String, in folder: TemporaryFolder, _ base: (name: String, format: String)?,
    _ random: inout SeededRandom
  ) throws -> String {
    try ReferenceTool.create(
      name, format: format, size: size, options: options, over: base, folder: folder.path,
      passphrase: passphrase)
    for number in 0..<bitmapCount {
      try ReferenceTool.qemuImg(
        "bitmap", "--add", "-g", "\(512 << (number % 3))", name, "bitmap \(number)", folder: folder.path)
    }
    for round in 0...snapshotCount {
      let packed = writesCompressed && round == 0 ? compressedWrites(&random) : []
      let commands = packed + (0..<operationCount).map { _ in command(&random) }
      // In its folder: the judge takes a data file's name as relative to where it runs.
      try ReferenceTool.io(commands, on: name, format: format, folder: folder.path, passphrase: passphrase)
      if round < snapshotCount {
        let image = passphrase == nil ? [name] : ReferenceTool.names(name, format, passphrase)
        try ReferenceTool.qemuImg.run(["snapshot", "-c", "snap \(round)"] + image, folder: folder.path)
          .expecting(0)
      }
    }
    return name
  }

  /// One random qemu-io command.
  private func command(_ random: inout SeededRandom) -> String {
    let range = random.range(in: size, most: max(3 * cluster, 96 * 1024), unit: cluster)
    let start = range.lowerBound
    let pattern = 1 + random.below(255)
    switch random.below(10) {
    case 0, 1: return "write -q -z \(start) \(range.count)"
    case 2: return "write -q -z -u \(start) \(range.count)"
    case 3: return "discard -q \(start) \(range.count)"
    case 4:
      // Whole clusters of zeros, and freed ones: the shapes that only a map shows.
      let first = start - start % cluster
      let count = min(cluster * (1 + random.below(3)), size - first)
      return random.oneIn(2) ? "discard -q \(first) \(count)" : "write -q -z \(first) \(count)"
    default: return "write -q -P \(pattern) \(start) \(range.count)"
    }
  }

  /// Writes of packed clusters: only where nothing is yet, so they come first.
  private func compressedWrites(_ random: inout SeededRandom) -> [String] {
    var clusters = Set<Int>()
    for _ in 0..<16 { clusters.insert(random.below((size + cluster - 1) / cluster)) }
    return clusters.sorted().map { index in
      let start = index * cluster
      return "write -q -c -P \(1 + random.below(255)) \(start) \(min(cluster, size - start))"
    }
  }
}
