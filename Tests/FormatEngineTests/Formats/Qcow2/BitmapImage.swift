import TestSupport
import Testing

@testable import FormatEngine

/// A qcow2 image file with bitmaps, for tests.
struct BitmapImage {
  let path: String

  /// Made by the judge: three enabled bitmaps of different granularity and a disabled one, all clear.
  static let names = ["fine", "middle", "coarse", "off"]
  static let granularities: [UInt64] = [512, 4096, 65536, 4096]

  init(in folder: TemporaryFolder, _ name: String = "image", options: String = "cluster_size=64k", size: Int)
    throws
  {
    path = folder.file(name)
    try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", options, path, "\(size)")
    for (name, granularity) in zip(Self.names, Self.granularities) {
      try ReferenceTool.qemuImg("bitmap", "--add", "-g", "\(granularity)", path, name)
    }
    try ReferenceTool.qemuImg("bitmap", "--disable", path, "off")
  }

  func open(_ access: FileAccess = .readWrite) throws -> ImageChain {
    var options = OpenOptions(format: "qcow2", access: access)
    options.cache = .unflushed
    return try ImageOpener.open(path, options).unlocked()
  }

  /// What is on disk now, by our own eyes.
  func records() throws -> [BitmapRecord] { try open(.readOnly).bitmapLayer.bitmaps() }

  func judgedRuns(_ name: String) throws -> [Range<UInt64>] {
    try ReferenceTool.dirtyRuns(of: name, in: path)
  }

  func expectSound(_ moment: String = "") throws {
    let verdict = try ReferenceTool.check(path)
    #expect(
      verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(moment) \(verdict.text)")
    let report = try #require(try open(.readOnly).top as? any Checkable).check(progress: .none)
    #expect(report.findings == [], "\(moment)")
  }
}

extension ImageChain {
  var bitmapLayer: any BitmapChanging {
    get throws { try #require(top as? any BitmapChanging) }
  }

  func dirtyRuns(_ name: String) throws -> [Range<UInt64>] {
    var runs: [Range<UInt64>] = []
    try bitmapLayer.forEachDirtyRun(of: name) { (run) throws(EngineError) in runs.append(run) }
    return runs
  }

  /// Random writes, zeros and discards, with the ranges that they touch.
  func change(_ random: inout SeededRandom, count: Int) throws -> [Range<UInt64>] {
    var touched: [Range<UInt64>] = []
    for _ in 0..<count {
      let range = random.range(in: Int(virtualSize), most: 300_000, unit: 65536)
      let offset = UInt64(range.lowerBound)
      switch random.below(6) {
      case 0: try writeZeros(at: offset, count: UInt64(range.count))
      case 1: try discard(at: offset, count: UInt64(range.count))
      default: try writeBytes(random.fill(range.count), at: offset)
      }
      touched.append(offset..<UInt64(range.upperBound))
    }
    return touched
  }
}

/// The runs of granules that ranges of guest bytes touch.
func granules(_ touched: [Range<UInt64>], _ granularity: UInt64, size: UInt64) throws -> [Range<UInt64>] {
  var bits = DirtyBits(
    granularityBits: UInt64(granularity.trailingZeroBitCount), virtualSize: size)
  for range in touched { bits.insert(range) }
  var runs: [Range<UInt64>] = []
  try bits.forEachRun { (run) throws(EngineError) in runs.append(run) }
  return runs
}
