import FormatEngine
import TestSupport
import Testing

/// A disk goes from each dialect to each other one and back to raw. We and the judge take turns, so that each
/// reads what the other wrote; every image on the way is sound for both.
@Suite struct ConversionMatrixTests {
  @Test(arguments: Dialect.all)
  func everyOtherDialectIsReachedAndReadBack(_ first: Dialect) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 41)
      let disk = Self.disk(&random)
      try folder.write(disk, to: "source")
      for (index, second) in Dialect.all.enumerated() where Self.isTried(first, second) {
        // Both orders in turn; a soak tries both for every pair.
        let orders = Effort.current == .soak ? [true, false] : [index.isMultiple(of: 2)]
        for isOursFirst in orders {
          let story = try Self.walk(disk, through: [first, second], isOursFirst: isOursFirst, in: folder)
          #expect(story == nil, "\(random)")
        }
      }
    }
  }

  /// A key costs about a second at each step: such a dialect meets two others in an ordinary run.
  private static func isTried(_ first: Dialect, _ second: Dialect) -> Bool {
    guard Effort.current != .soak, first.hasKey || second.hasKey else { return true }
    let plain = first.hasKey ? second : first
    return ["raw", "qcow2"].contains(plain.name)
  }

  /// Zeros, runs that compress and bytes that do not; it ends in the middle of every kind of block.
  private static func disk(_ random: inout SeededRandom) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < 1_400_000 {
      let count = 512 * (1 + random.below(180))
      switch random.below(3) {
      case 0: bytes += [UInt8](repeating: 0, count: count)
      case 1: bytes += random.fill(count)
      default: bytes += random.bytes(count)
      }
    }
    return Array(bytes.prefix(1_400_000 / 512 * 512))
  }

  /// Converts the disk from raw through `dialects` to raw again, and gives what went wrong.
  private static func walk(
    _ disk: [UInt8], through dialects: [Dialect], isOursFirst: Bool, in folder: TemporaryFolder
  ) throws -> String? {
    var isOurs = isOursFirst
    var from = Dialect(name: "raw", format: "raw").source("source")
    var story: [String] = []
    for (step, dialect) in (dialects + [Dialect(name: "raw", format: "raw", isChecked: false)]).enumerated() {
      let name = "image\(step)"
      isOurs = isOurs || dialect.isMadeByUs
      let options = ["convert"] + Self.key + ["--image-opts"] + dialect.target + [from, name]
      let result = try Self.run(options, isOurs: isOurs, in: folder)
      story.append("\(isOurs ? "ours" : "judge"): \(options.joined(separator: " "))")
      guard result.status == 0 else {
        return (story + ["status \(result.status): \(result.stderrText)"]).joined(separator: "\n")
      }
      from = dialect.source(name)
      if let fault = try Self.fault(in: dialect, from, isOurs: isOurs, folder) {
        return (story + [fault]).joined(separator: "\n")
      }
      isOurs.toggle()
    }
    let now = try Files.read(folder.file("image\(dialects.count)"))
    let mayBeLonger = dialects.contains(where: \.roundsSize)
    let expected = mayBeLonger ? ModelDisk(disk).padded(0..<max(now.count, disk.count)) : disk
    guard let place = ModelDisk.firstDifference(now, expected) else { return nil }
    return (story + ["differs at \(place); \(now.count) bytes"]).joined(separator: "\n")
  }

  /// Whether an image that one of us wrote is sound for the other one.
  private static func fault(in dialect: Dialect, _ source: String, isOurs: Bool, _ folder: TemporaryFolder)
    throws -> String?
  {
    guard dialect.isChecked, !dialect.hasKey else { return nil }
    let result = try run(["check", "--image-opts", source], isOurs: !isOurs, in: folder)
    // 63: the format has nothing to check.
    guard result.status != 0, result.status != 63 else { return nil }
    return "\(result.command): \(result.stdoutText)\(result.stderrText)"
  }

  private static let key = ["--object", "secret,id=key,data=open sesame"]

  private static func run(_ arguments: [String], isOurs: Bool, in folder: TemporaryFolder) throws
    -> ProcessResult
  {
    if isOurs { return try BuiltProduct.qemuImg.run(arguments, folder: folder.path) }
    for _ in 0..<20 {
      let result = try ReferenceTool.qemuImg.run(arguments, folder: folder.path)
      // By chance, on a busy machine; it says nothing of the image.
      if !result.stderrText.contains("Unable to get accurate CPU usage") { return result }
    }
    throw TestFailure("The judge cannot measure its own speed")
  }
}
