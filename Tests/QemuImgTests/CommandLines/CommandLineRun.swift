import Foundation
import TestSupport

/// What one command line printed and ended with.
struct LineOutcome: Equatable, CustomStringConvertible {
  var stdout: String
  var stderr: String
  /// The exit status, and the new files that were left behind.
  var end: String

  var description: String { "[\(end)] \(stdout)\(stderr)" }
}

/// Runs many command lines in one shell, each with what the last ones left, so that thousands of them take no longer
/// than their processes. Names that begin with `new` are removed after each line.
struct CommandLineRun {
  private let process: TestProcess
  private let count: Int

  /// One of each format, and files with names that mean something elsewhere.
  private static let setup = """
    for f in qcow2 qcow qed vmdk vdi vpc vhdx parallels; do qemu-img create -q -f $f a.$f 1M; done
    qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2; qemu-img create -q -f raw a.raw 1M
    qemu-img snapshot -c one a.qcow2
    mkdir dir; printf 'a=b' > txt; : > empty; printf pw > pass; cp a.raw 'sp ace'; cp a.raw 'co,mma'
    """

  /// Starts the lines with the qemu-img at `tool`, in a folder of its own in `folder`.
  init(_ lines: [String], tool: String, in folder: TemporaryFolder, named name: String) throws {
    let programs = try folder.makeFolder("\(name)-programs")
    try FileManager.default.createSymbolicLink(atPath: "\(programs)/qemu-img", withDestinationPath: tool)
    let work = try folder.makeFolder(name)
    var script = Self.setup + "\n"
    for line in lines {
      script += """
        echo '@@'; echo '@@' >&2
        qemu-img \(line)
        echo "@@$?"; for f in new*; do [ -e "$f" ] && { echo "$f"; rm -rf "$f"; }; done

        """
    }
    try folder.write(Array(script.utf8), to: "\(name).sh")
    count = lines.count
    process = try TestProcess(
      ["/bin/sh", folder.file("\(name).sh")],
      environment: ["PATH": "\(programs):/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"], folder: work)
  }

  /// What the lines did, in their order.
  func outcomes() throws -> [LineOutcome] {
    let result = process.wait(timeout: 120)
    let output = result.stdoutText.components(separatedBy: "@@").dropFirst()
    let errors = Array(result.stderrText.components(separatedBy: "@@\n").dropFirst())
    let parts = Array(output)
    guard errors.count == count, parts.count == 2 * count, !result.timedOut else {
      throw TestFailure("The lines did not run to their end: \(result.stderrText.suffix(500))")
    }
    return (0..<count).map { index in
      LineOutcome(
        stdout: String(parts[2 * index].dropFirst()), stderr: errors[index],
        end: parts[2 * index + 1].trimmingCharacters(in: .newlines).replacingOccurrences(of: "\n", with: " "))
    }
  }
}
