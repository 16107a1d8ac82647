import CommandLine
import Foundation
import TestSupport
import Testing

@testable import imgfs

/// The manual page and the completions that are made from the table.
@Suite struct GeneratedTextTests {
  @Test(arguments: [
    ("man", "imgfs.1"), ("bash", "completions/imgfs.bash"), ("zsh", "completions/_imgfs"),
    ("fish", "completions/imgfs.fish"),
  ])
  func filesMadeFromTheTableAreUpToDate(_ kind: String, _ name: String) throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../..")
    let file = try String(contentsOf: root.appendingPathComponent("Docs/\(name)"), encoding: .utf8)
    #expect(try GeneratedText.text(kind) == file, "scripts/docs writes Docs/\(name) anew")
  }

  @Test func theManualHasEveryOption() {
    let text = ManualPage.text
    for option in Invocation.shownOptions {
      #expect(text.contains(RoffText.escaped("--\(option.key)")), "\(option.key)")
    }
    for name in SettingTable.all.compactMap(\.mountName) + MountOptionList.kernelFlags {
      #expect(text.contains(RoffText.escaped(name)), "\(name)")
    }
    let keys = Invocation.shownOptions.map(\.key) + SettingTable.mount.map(\.key)
    #expect(Set(ManualDetails.sentences.keys).isSubset(of: keys))
  }

  @Test(arguments: [
    ("--ov", "--overlay"), ("--passphrase-fi", "--passphrase-file"), ("-F vh", "vhdx"),
    ("--backing f", "follow"),
    ("--backing = n", "none"), ("-o sin", "single_thread"),
    ("-o rw,noatime,allow_p", "rw,noatime,allow_path="),
    ("--options rw,um", "rw,umask="), ("--pid-file a", "a.qcow2"), ("-f a", "a.qcow2"), ("--object a", ""),
  ])
  func bashOffers(_ line: String, _ offered: String) throws {
    try TemporaryFolder.with { folder in
      _ = try folder.write([], to: "a.qcow2")
      let completions = try folder.write(Array(BashCompletion.text.utf8), to: "completions")
      let words = (["imgfs"] + line.split(separator: " ").map(String.init)).map { "'\($0)'" }
      let script =
        ". \(completions); COMP_WORDS=(\(words.joined(separator: " "))); COMP_CWORD=\(words.count - 1)\n"
        + "_imgfs; printf '%s\\n' \"${COMPREPLY[@]}\""
      let result = try TestProcess.run(["/bin/bash", "-c", script], folder: folder.path)
      #expect(result.stdoutText == offered + "\n" && result.stderrText == "", "\(result.stderrText)")
    }
  }

  @Test(
    .enabled(if: Files.exists("/usr/bin/fish"), "fish is not installed"),
    arguments: [
      ("--ov", "--overlay"), ("-F vh", "vhdx"), ("-o rw,uma", "rw,umask="), ("--backing=n", "--backing=none"),
    ])
  func fishOffers(_ line: String, _ offered: String) throws {
    try TemporaryFolder.with { folder in
      let completions = try folder.write(Array(FishCompletion.text.utf8), to: "completions")
      let result = try TestProcess.run(
        ["/usr/bin/fish", "-c", "source \(completions); complete -C 'imgfs \(line)'"],
        environment: ["HOME": folder.path, "TERM": "dumb"])
      let words = result.stdoutText.split(separator: "\n").map { $0.split(separator: "\t")[0] }
      #expect(words.contains(Substring(offered)), "\(words) \(result.stderrText)")
    }
  }

  @Test(.enabled(if: Files.exists("/usr/bin/zsh"), "zsh is not installed")) func zshReadsItsCompletions()
    throws
  {
    try TemporaryFolder.with { folder in
      let completions = try folder.write(Array(ZshCompletion.text.utf8), to: "_imgfs")
      let result = try TestProcess.run(["/usr/bin/zsh", "-n", completions])
      #expect(result.status == 0 && result.stderrText == "")
    }
  }
}
