import Foundation
import TestSupport
import Testing

/// Images that are made to use up memory and time, given to the program itself under the limits of OpenStack: whatever
/// it says of them, it ends by itself, in little memory (CVE-2015-5162).
@Suite struct LimitsTests {
  /// A command; its first words name it where an image needs something for it.
  struct Command: Sendable {
    var name: String
    var words: [String]
    /// All exit statuses that it knows: `check` has 2 (damage), 3 (leaks) and 63 (a format without a check).
    var statuses: Set<Int> = [0, 1]

    func arguments(_ image: ExhaustingImage) -> [String] {
      let format = image.format.map { ["-f", $0] } ?? []
      return name == "dd"
        ? words + format + ["bs=512", "count=1", "if=\(image.name)", "of=copy"]
        : words + format + [image.name]
    }
  }

  static let commands = [
    Command(name: "info", words: ["info"]),
    Command(name: "info --backing-chain", words: ["info", "--backing-chain"]),
    Command(name: "info -U", words: ["info", "-U", "--output=json"]),
    Command(name: "check", words: ["check"], statuses: [0, 1, 2, 3, 63]),
    Command(name: "map", words: ["map", "--output=json"]),
    Command(name: "snapshot", words: ["snapshot", "-l"]),
    Command(name: "measure", words: ["measure", "-O", "qcow2"]),
    Command(name: "dd", words: ["dd"]),
  ]

  /// KiB beyond what the work needs.
  private static let margin = 96 << 10

  /// What each command uses on an image that means no harm, in KiB.
  private static let baselines = Result {
    try TemporaryFolder.with { folder in
      try BuiltProduct.qemuImg.run(["create", "-q", "-f", "qcow2", "image", "1M"], folder: folder.path)
        .expecting()
      var peaks: [String: Int] = [:]
      for command in commands {
        let image = ["image"]
        let words = command.name == "dd" ? ["bs=512", "count=1", "if=image", "of=copy"] : image
        peaks[command.name] = try MeasuredRun.run(.qemuImg, command.words + words, in: folder).peakKibibytes
      }
      return peaks
    }
  }

  /// Those of which all commands together take some seconds, in a program without optimization; the others only where
  /// there is time.
  private static let quick: Set<String> = [
    "qcow2: 65536 snapshots, each with a table",
    "qcow2: L1 table of 32 MiB, all of it one L2 table of one cluster", "qcow2: L1 table of 32 MiB in a hole",
    "qcow2: 43,000 names for unknown features", "qcow2: a data file whose name is a JSON list of 2 MiB",
    "qcow2: refcount table of 8 MiB in a hole", "qcow2: 250,000 header extensions",
    "qcow2: a data file whose name is a JSON object 20,000 levels deep", "qcow2: disk of 2^63 - 1 bytes",
    "qcow2: a backing file whose name is a JSON object 120 levels deep", "qcow2: packed bomb, zlib",
    "qcow2: packed bomb, zstd", "chain of 200 qcow2 images", "qcow2 image over itself",
    "two qcow2 images over each other", "vmdk: descriptor of 4 MiB, one line",
    "vmdk: packed bomb in grains of 2 MiB", "vpc: as many blocks as there can be, all in the header",
    "vpc: 2 TiB in blocks of 512 bytes", "vhdx: 2047 regions", "vhdx: 2047 items of metadata",
    "vhdx: parent locator of 1 MiB", "parallels: as many clusters as there can be, none in use",
    "parallels: as many clusters as there can be, of a sector each",
    "parallels bundle: entities that grow to gigabytes", "parallels bundle: 100,000 levels",
    "parallels bundle: 500,000 attributes", "parallels bundle: a comment of 4 MiB",
    "parallels bundle: 190,000 elements",
  ]

  @Test func imagesOfEveryRunAreThere() {
    #expect(Self.quick.isSubset(of: Set(ExhaustingImage.all.map(\.description))))
  }

  @Test(
    arguments: ExhaustingImage.all.filter {
      (Effort.current == .soak || quick.contains($0.description)) && ChosenRows.contain($0.description)
    })
  func imageUsesUpNeitherMemoryNorTime(_ image: ExhaustingImage) throws {
    Tally.add("commands on images that use up memory and time", Self.commands.count)
    let baselines = try Self.baselines.get()
    try image.with { folder in
      for command in Self.commands {
        let isEndless = image.endless.contains(command.name)
        let run = try MeasuredRun.run(
          .qemuImg, command.arguments(image), in: folder, endingAfter: isEndless ? 2 : nil)
        let what = "\(image): \(command.name)"
        let baseline = try #require(baselines[command.name])
        let needed = image.needed[command.name] ?? 0
        #expect(
          run.peakKibibytes <= baseline + Self.margin + needed << 10,
          "\(what): \(run.peakKibibytes / 1024) MiB, where a plain image takes \(baseline / 1024) MiB")
        // Nobody may end it but this test.
        #expect(
          command.statuses.contains(run.result.status) || (isEndless && run.wasEnded),
          "\(what): \(run.result.status) after \(run.processorSeconds) s\n\(run.result.stderrText.suffix(500))"
        )
        #expect(
          run.result.status == 0 || run.wasEnded || !run.result.stderr.isEmpty || command.name == "check",
          "\(what)")
        #expect(!run.result.timedOut, "\(what)")
      }
    }
  }
}
