import Foundation
import TestSupport
import Testing

@testable import qemu_img

/// Wrong command lines, beside the judge's words for them.
@Suite struct CommandLineTests {
  /// Lines for which QEMU 10 has other words than the judge, or where ours are better, with the reason.
  private static let differences: [(pattern: String, reason: String)] = [
    ("^measure .*(-Y|-qY|--bogus|--help=1)", "the judge shows all of its help, and ends with 0"),
    ("^measure( a.raw)? --?[a-zA-Z]+$", "the same for a missing value"),
    ("^measure --?[a-zA-Z-]+=1 ", "the same for a value too much"),
    ("^measure -o? ?--?[a-z]+ ", "the same"),
    ("(--size|size=|offset=|bs=|-m) ?'?--?1", "out of range since QEMU 8.1, no wrong number"),
    ("^create -f (vdi|vpc|vhdx) -b ", "images of these formats can have parents here"),
    ("^measure -O (vdi|vpc|vhdx) ", "these can be measured here"),
    ("^check (a.raw|co,mma)", "every format can be checked here that has tables"),
    ("^snapshot.* -f", "QEMU 10.1 has it"),
    ("^create -q -f raw -o size=[0-9]+E? dir", "the size is looked at before a file is made"),
    ("^create -f luks -o 'preallocation", "the secret is looked for first"),
    (">(&-|/dev/full)", "the judge does not notice that nobody got its output"),
  ]

  private func isDifferent(_ line: String) -> Bool {
    Self.differences.contains { line.range(of: $0.pattern, options: .regularExpression) != nil }
  }

  @Test(arguments: CommandLineGroup.all)
  func saysWhatTheJudgeSays(_ group: CommandLineGroup) throws {
    try TemporaryFolder.with { folder in
      let ours = try CommandLineRun(group.lines, tool: BuiltProduct.qemuImg.path, in: folder, named: "ours")
      let judge = try CommandLineRun(
        group.lines, tool: ReferenceTool.qemuImg.path, in: folder, named: "judge")
      Tally.add("command lines beside the judge", group.lines.count)
      for ((line, mine), theirs) in zip(zip(group.lines, try ours.outcomes()), try judge.outcomes()) {
        // A file that the judge could not make is sometimes left behind by it. One that was made stays, of course,
        // where only the words about it could not be written.
        let status = mine.end.split(separator: " ").first ?? ""
        #expect(status == "0" || mine.end == status || line.contains(">"), "\(line): left \(mine.end)")
        if isDifferent(line) { continue }
        #expect(mine.stdout == theirs.stdout, "qemu-img \(line)")
        #expect(mine.stderr == theirs.stderr, "qemu-img \(line)")
        #expect(status == theirs.end.split(separator: " ").first ?? "", "qemu-img \(line)")
      }
    }
  }

  /// A file that is opened takes the lowest number that is free, which may be that of standard output.
  @Test func nothingIsPrintedIntoAnImageWhereStreamsAreClosed() throws {
    try TemporaryFolder.with { folder in
      _ = try TestProcess.run(
        ["/bin/sh", "-c", "\(BuiltProduct.qemuImg.path) create -f raw new 1M <&- >&- 2>&-"],
        folder: folder.path)
      #expect(try Files.read(folder.file("new")).holdsOnly(0))
    }
  }

  @Test func helpForObjectsIsNoError() throws {
    for list in ["help", "?", "secret,help"] {
      let result = try TestProcess.run([BuiltProduct.qemuImg.path, "info", "--object", list, "missing"])
        .expecting(0)
      #expect(result.stdoutText.contains("secret") && result.stderrText.isEmpty)
    }
  }
}
