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
  private static let baselines: [String: Int] = {
    let plain = try? TemporaryFolder.with { folder in
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
    return plain ?? [:]
  }()

  @Test(arguments: ExhaustingImage.all) func imageUsesUpNeitherMemoryNorTime(_ image: ExhaustingImage) throws
  {
    try image.with { folder in
      for command in Self.commands {
        let isEndless = image.endless.contains(command.name)
        let run = try MeasuredRun.run(
          .qemuImg, command.arguments(image), in: folder, endingAfter: isEndless ? 2 : nil)
        let what = "\(image): \(command.name)"
        let baseline = try #require(Self.baselines[command.name])
        let needed = image.needed[command.name] ?? 0
        if let path = ProcessInfo.processInfo.environment["LIMITS_LOG"] {
          let line =
            "\(run.peakKibibytes / 1024) MiB\t\(run.processorSeconds) s\t\(run.result.status)\t\(what)\t\(run.result.stderrText.prefix(150))\n"
          let old = (try? Files.read(path)) ?? []
          try Files.write(old + Array(line.replacing("\n", with: " ").utf8) + [10], to: path)
        }
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
