import Foundation
import TestSupport

/// A folder `Golden/<verb>/<case>`: shell lines in `command`, and what they are to print and to end with.
///
/// The lines run in an empty folder with our qemu-img first in PATH. A `command` that begins with
/// `# judged` must also print the same with Debian's qemu-img in place of ours.
struct GoldenCase: Sendable, CustomStringConvertible {
  let name: String
  let folder: String
  let command: String

  var description: String { name }
  var isJudged: Bool { command.hasPrefix("# judged") }

  /// What a run of the command left behind.
  struct Outcome: Equatable {
    var stdout: String
    var stderr: String
    var exit: String
  }

  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
    "Golden"
  ).path

  /// All cases, by name.
  static let all: [GoldenCase] = {
    let files = FileManager.default
    var result: [GoldenCase] = []
    for verb in (try? files.contentsOfDirectory(atPath: root)) ?? [] {
      for name in (try? files.contentsOfDirectory(atPath: "\(root)/\(verb)")) ?? [] {
        let folder = "\(root)/\(verb)/\(name)"
        guard let command = try? String(contentsOfFile: "\(folder)/command", encoding: .utf8) else {
          continue
        }
        result.append(GoldenCase(name: "\(verb)/\(name)", folder: folder, command: command))
      }
    }
    return result.sorted { $0.name < $1.name }
  }()

  func expected() throws -> Outcome {
    func text(_ name: String) throws -> String {
      String(decoding: try Files.read("\(folder)/\(name)"), as: UTF8.self)
    }
    return Outcome(stdout: try text("stdout"), stderr: try text("stderr"), exit: try text("exit"))
  }

  func record(_ outcome: Outcome) throws {
    try Files.write(Array(outcome.stdout.utf8), to: "\(folder)/stdout")
    try Files.write(Array(outcome.stderr.utf8), to: "\(folder)/stderr")
    try Files.write(Array(outcome.exit.utf8), to: "\(folder)/exit")
  }

  /// Runs the command with the qemu-img at `tool`.
  func run(with tool: String) throws -> Outcome {
    try TemporaryFolder.with { folder in
      let programs = try folder.makeFolder("programs")
      try FileManager.default.createSymbolicLink(atPath: "\(programs)/qemu-img", withDestinationPath: tool)
      let work = try folder.makeFolder("work")
      let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
      let result = try TestProcess.run(
        ["/bin/sh", "-c", command],
        environment: ["PATH": "\(programs):\(path)", "LC_ALL": "C", "TZ": "UTC"], folder: work, timeout: 60)
      if result.timedOut { throw TestFailure("\(name): not done after 60 seconds") }
      return Outcome(
        stdout: Self.normalised(result.stdoutText, work), stderr: Self.normalised(result.stderrText, work),
        exit: "\(result.status)\n")
    }
  }

  /// Without what changes from run to run and from host to host.
  private static func normalised(_ text: String, _ folder: String) -> String {
    var text = text.replacingOccurrences(of: folder, with: "FOLDER")
    for (pattern, replacement) in [
      (#"disk size: [0-9.]+ [KMGT]?i?B"#, "disk size: SIZE"),
      (#"Run completed in [0-9]+\.[0-9]{3} seconds"#, "Run completed in TIME seconds"),
      (#""actual-size": [0-9]+"#, "\"actual-size\": SIZE"),
      (#"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"#, "DATE               "),
      (#""date-(n?sec)": [0-9]+"#, "\"date-$1\": NUMBER"),
    ] {
      text = text.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression)
    }
    return text
  }
}

extension GoldenCase.Outcome {
  /// Without what qemu-img prints since 8.0, for a comparison with one that is older.
  var reduced: Self {
    var result = self
    for (pattern, replacement) in [
      (#", "compressed": (true|false)"#, ""),
      // The plain file below a format: people's block, and the list in JSON.
      (#"(?m)^Child node '/.*\n(    .*\n)*"#, ""), (#"(?m)^( *)"children": \[\n(\1 .*\n)*\1\],?\n"#, ""),
    ] {
      result.stdout = result.stdout.replacingOccurrences(
        of: pattern, with: replacement, options: .regularExpression)
    }
    return result
  }
}
