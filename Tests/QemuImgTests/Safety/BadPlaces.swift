import TestSupport

/// Commands that write where there is no room or no right to, run beside the judge in a name space of mounts of its own:
/// whatever happens, nothing stays mounted.
struct BadPlaces {
  /// One command, and what it left.
  struct Outcome: Equatable {
    var command: String
    var status: Int
    var stdout: String
    var stderr: String
    /// Names in the folder `m`.
    var files: [String]
  }

  /// `/mnt/w` holds `disk.raw` (2 MiB without zeros), `m`, a file system of 1 MiB, and what the lines make. `try` runs a
  /// command and notes its outcome, `fill` leaves no room in `m`, `clean` empties it. `$J` is the judge, `$Q` what is judged.
  private static let prelude = #"""
    set -u
    mount -t tmpfs -o mode=755 none /mnt || exit 99
    mkdir -p /mnt/bin /mnt/w/m /mnt/log; chmod 777 /mnt/log; : > /mnt/bin/qemu-img
    mount --bind "$TOOL" /mnt/bin/qemu-img || exit 99
    cd /mnt/w; Q=/mnt/bin/qemu-img
    mount -t tmpfs -o size=1m none m || exit 99
    head -c 2M /dev/urandom | tr '\000' 'x' > disk.raw; chmod 644 disk.raw
    note() { printf '\036%s\037%s\037' "$1" "$2"; tr '\r' '~' < /mnt/log/out; printf '\037'; tr '\r' '~' < /mnt/log/err; printf '\037'; ls m; }
    run() { timeout 20 $AS $Q "$@" > /mnt/log/out 2> /mnt/log/err < /dev/null; }
    try() { AS=${AS-}; { run "$@"; } 2> /mnt/log/shell; note "$*" $?; }
    fill() { head -c 2M /dev/zero > m/zz-full 2> /dev/null; }
    clean() { rm -rf m/*; }

    """#

  /// What the lines' commands leave, in their order.
  static func outcomes(_ tool: String, _ lines: String) throws -> [Outcome] {
    let result = try TestProcess.run(
      ["/usr/bin/unshare", "-m", "/bin/bash", "-c", prelude + lines],
      environment: ["TOOL": tool, "J": ReferenceTool.qemuImg.path, "LC_ALL": "C"])
    guard result.status == 0, !result.timedOut else {
      throw TestFailure("The lines ended with \(result.status): \(result.stderrText)")
    }
    return result.stdoutText.split(separator: "\u{1e}").map { record in
      let fields = record.split(separator: "\u{1f}", omittingEmptySubsequences: false).map(String.init)
      return Outcome(
        command: fields[0], status: Int(fields[1]) ?? -1, stdout: fields[2], stderr: fields[3],
        files: fields[4].split(separator: "\n").map(String.init))
    }
  }

  /// Pairs of what our qemu-img and the judge's leave, command by command.
  static func compared(_ lines: String) throws -> [(ours: Outcome, judged: Outcome)] {
    let ours = try outcomes(BuiltProduct.qemuImg.path, lines)
    let judged = try outcomes(ReferenceTool.qemuImg.path, lines)
    guard !ours.isEmpty, ours.map(\.command) == judged.map(\.command) else {
      throw TestFailure("\(ours.count) and \(judged.count) outcomes")
    }
    return Array(zip(ours, judged))
  }
}
