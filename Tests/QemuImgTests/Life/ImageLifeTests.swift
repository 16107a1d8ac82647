import FormatEngine
import TestSupport
import Testing

/// What kind of image lives.
struct LifeRow: Sendable, CustomTestStringConvertible {
  var options: String
  var size = 1_500_160
  var cluster = 65536
  /// Bytes of the image below, where there is one.
  var baseSize: Int?
  var isPackable = true
  /// Version 2 and 3 may take turns.
  var changesVersion = false
  var hasBitmaps = true
  var testDescription: String { "\(options)\(baseSize == nil ? "" : " over another image")" }

  static let all = [
    LifeRow(options: "", changesVersion: true),
    LifeRow(options: "cluster_size=4k,lazy_refcounts=on", cluster: 4096),
    LifeRow(options: "cluster_size=512", size: 300_032, cluster: 512),
    LifeRow(options: "cluster_size=2M", size: 9_000_448, cluster: 2 << 20),
    LifeRow(options: "compat=0.10", hasBitmaps: false),
    LifeRow(options: "extended_l2=on"),
    LifeRow(options: "compression_type=zstd,refcount_bits=64"),
    LifeRow(options: "cluster_size=4k", cluster: 4096, baseSize: 1_000_448),
    LifeRow(options: "extended_l2=on,cluster_size=32k", cluster: 32768, baseSize: 2_000_384),
    LifeRow(options: "data_file=image.data", isPackable: false),
    LifeRow(options: "data_file=image.data,data_file_raw=on", isPackable: false),
  ]
}

/// Random sequences of all that can be done with a qcow2 image.
@Suite struct ImageLifeTests {
  @Test(arguments: LifeRow.all)
  func everyStepLeavesASoundImageThatHoldsWhatItShould(_ row: LifeRow) throws {
    let random = SeededRandom.fromEnvironment(or: 91)
    try TemporaryFolder.with { folder in
      var life = try ImageLife(row, in: folder, random: random)
      do {
        try life.verify()
        for step in 0..<Effort.rounds(8) {
          try life.step()
          try life.verify()
          if step % 4 == 3 { try life.verifySnapshots() }
        }
        try life.verifySnapshots()
      } catch {
        Issue.record("\(error)\n\(life.story.joined(separator: "\n"))\n\(random)")
      }
    }
  }
}

extension ImageLife {
  /// Does something.
  mutating func step() throws {
    switch random.below(16) {
    case 0...4: try change((0...random.below(3)).map { _ in nextChange() })
    case 5: try pack()
    case 6, 7: try takeSnapshot()
    case 8: try goBack()
    case 9: try deleteSnapshot()
    case 10, 11: try resize()
    case 12: try amend()
    case 13: try changeBitmaps()
    case 14:
      // The judge's own repair throws snapshots away where there are bitmaps too.
      if snapshots.isEmpty || bitmaps.isEmpty { try run(["check", "-q", "-r", "all", "image"]) }
    default:
      if base == nil { try replaceByCopy() } else { try changeBase() }
    }
  }

  private mutating func nextChange() -> GuestChange {
    let range = sectors(
      random.range(in: disk.byteCount, most: max(3 * row.cluster, 100_000), unit: row.cluster))
    switch random.below(7) {
    case 0: return .zeros(range, freeing: random.oneIn(2))
    case 1:
      guard let whole = wholeClusters() else { return .zeros(range, freeing: true) }
      return row.options.contains("0.10") ? .zeros(whole, freeing: true) : .discard(whole)
    default: return .write(range, pattern: UInt8(1 + random.below(255)))
    }
  }

  /// One to three clusters: all tools treat whole ones alike.
  private mutating func wholeClusters() -> Range<Int>? {
    let count = disk.byteCount / row.cluster
    guard count > 0 else { return nil }
    let first = random.below(count)
    return first * row.cluster..<min(first + 1 + random.below(3), count) * row.cluster
  }

  private mutating func pack() throws {
    guard row.isPackable, row.cluster > 512, let whole = wholeClusters(), try isEmpty(whole) else { return }
    try change([.writePacked(whole, pattern: UInt8(1 + random.below(255)))])
  }

  private func sectors(_ range: Range<Int>) -> Range<Int> {
    let start = range.lowerBound / 512 * 512
    return start..<min(disk.byteCount, max(start + 512, range.upperBound / 512 * 512))
  }

  private mutating func takeSnapshot() throws {
    let name = "state \(story.count)"
    if try run(["snapshot", "-c", name, "image"]) { snapshots.append((name, disk)) }
  }

  private mutating func goBack() throws {
    guard let snapshot = snapshots.randomElement(using: &random) else { return }
    if try run(["snapshot", "-a", snapshot.name, "image"]) { disk = snapshot.disk }
  }

  private mutating func deleteSnapshot() throws {
    guard !snapshots.isEmpty else { return }
    let index = random.below(snapshots.count)
    if try run(["snapshot", "-d", snapshots[index].name, "image"]) { snapshots.remove(at: index) }
  }

  private mutating func resize() throws {
    var size = max(1, (disk.byteCount + random.below(1 << 20) - (1 << 19)) / 512) * 512
    // The judge leaves what stood behind the end in the last cluster, and shows it when the disk grows again.
    if size < disk.byteCount { size = max(1, size / row.cluster) * row.cluster }
    let shrink = size < disk.byteCount ? ["--shrink"] : []
    var mode: [String] = []
    // The judge also shows what a longer base has there, and what stood in clusters that were freed before.
    if size > disk.byteCount, row.baseSize == nil, story.count < 5, random.oneIn(3) {
      mode = ["--preallocation=\(random.oneIn(2) ? "metadata" : "full")"]
    }
    guard try run(["resize", "-q", "-f", "qcow2"] + shrink + mode + ["image", "\(size)"]) else { return }
    let kept = Array(disk.bytes.prefix(size))
    disk = ModelDisk(kept + [UInt8](repeating: 0, count: size - kept.count))
  }

  private mutating func amend() throws {
    // Eight bits overflow after some snapshots of packed clusters, and the judge leaks what it had counted.
    let bits = ["16", "32", "64"]
    let choice =
      switch random.below(row.changesVersion ? 4 : 2) {
      case 0: "lazy_refcounts=\(random.oneIn(2) ? "on" : "off")"
      // With clusters of 2 MiB the judge may take minutes for it.
      case 1 where row.cluster < 2 << 20: "refcount_bits=\(bits[random.below(bits.count)])"
      // The judge takes bitmaps along into version 2, where they are only in the way.
      case 2 where bitmaps.isEmpty: "compat=0.10"
      default: row.options.contains("0.10") ? "lazy_refcounts=off" : "compat=1.1"
      }
    try run(["amend", "-f", "qcow2", "-o", choice, "image"])
  }

  private mutating func changeBitmaps() throws {
    guard row.hasBitmaps else { return }
    let name = "bitmap \(random.below(4))"
    if bitmaps.contains(name) {
      let action = ["--remove", "--clear", "--disable", "--enable"][random.below(4)]
      if try run(["bitmap", action, "-f", "qcow2", "image", name]), action == "--remove" {
        bitmaps.remove(name)
      }
    } else if try run(["bitmap", "--add", "-f", "qcow2", "image", name]) {
      bitmaps.insert(name)
    }
  }

  /// Copying loses snapshots and bitmaps.
  private mutating func replaceByCopy() throws {
    guard !row.options.contains("data_file") else { return }
    let packs = random.oneIn(2) && row.isPackable ? ["-c"] : []
    let options = row.options.isEmpty ? [] : ["-o", row.options]
    try run(["convert", "-f", "qcow2", "-O", "qcow2"] + packs + options + ["image", "copy"])
    for place in [Self.mixed, Self.judged] {
      try TestProcess.run(["/bin/mv", "copy", "image"], folder: folder.file(place)).expecting(0)
    }
    snapshots = []
    bitmaps = []
  }

  /// Another image below, none, or this one's content goes into it.
  private mutating func changeBase() throws {
    // Snapshots are read through what lies below, which this changes.
    guard snapshots.isEmpty else { return }
    switch random.below(4) {
    case 0: try run(["rebase", "-f", "qcow2", "-b", "", "image"])
    case 1: try run(["rebase", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "image"])
    case 2: try run(["rebase", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "image"])
    default: try commit()
    }
  }

  private mutating func commit() throws {
    guard let base else { return }
    let info = try ImageOpener.open(image).top.backing
    guard info?.name == "base.qcow2" else { return }
    guard try run(["commit", "-q", "-f", "qcow2", "image"]) else { return }
    let tail = base.byteCount > disk.byteCount ? Array(base.bytes[disk.byteCount...]) : []
    self.base = ModelDisk(disk.bytes + tail)
  }
}
