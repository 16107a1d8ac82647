import Foundation
import TestSupport
import Testing

@testable import qemu_img

/// What the shells offer with the completions loaded, in a folder with the files `a.qcow2` and `b c.raw`.
@Suite struct CompletionTests {
  struct Line: Sendable, CustomStringConvertible {
    let words: [String]
    let offered: [String]
    /// Files come from the shell's own code, where fish is of its own mind.
    var areFiles = false

    var description: String { words.joined(separator: " ") }
  }

  static let lines = [
    Line(words: ["comp"], offered: ["compare"]),
    Line(words: ["--vers"], offered: ["--version"]),
    Line(words: ["convert", "--target-i"], offered: ["--target-image-opts", "--target-is-zero"]),
    Line(words: ["convert", "-O", "qc"], offered: ["qcow", "qcow2"]),
    Line(words: ["convert", "-q", "--target-format", "v"], offered: ["vdi", "vhdx", "vmdk", "vpc"]),
    Line(words: ["check", "-r", "l"], offered: ["leaks"]),
    Line(words: ["info", "a"], offered: ["a.qcow2"], areFiles: true),
    Line(words: ["rebase", "-b", "b"], offered: ["b c.raw"], areFiles: true),
    Line(words: ["dd", "of"], offered: ["of="]),
  ]

  private static func path(of shell: String) -> String? {
    ["/bin/", "/usr/bin/"].map { $0 + shell }.first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// Runs the shell's lines beside the completions' text, and gives what they print.
  private func offers(_ shell: String, _ completions: String, _ lines: String) throws -> [String] {
    try TemporaryFolder.with { folder in
      try folder.write([], to: "a.qcow2")
      try folder.write([], to: "b c.raw")
      let place = try folder.makeFolder("completions")
      try Files.write(Array(completions.utf8), to: "\(place)/_qemu-img")
      let path = try #require(Self.path(of: shell))
      let result = try TestProcess.run(
        [path, "-c", lines], environment: ["PLACE": place, "HOME": place, "TERM": "dumb"], folder: folder.path
      )
      #expect(result.stderrText == "")
      return result.stdoutText.split(separator: "\n").map(String.init).sorted()
    }
  }

  @Test(arguments: lines) func bashOffers(_ line: Line) throws {
    let words = (["qemu-img"] + line.words).map { "'\($0)'" }.joined(separator: " ")
    let offered = try offers(
      "bash", BashCompletion.text,
      """
      . "$PLACE/_qemu-img"
      COMP_WORDS=(\(words)); COMP_CWORD=\(line.words.count); _qemu_img; printf '%s\\n' "${COMPREPLY[@]}"
      """)
    #expect(offered == line.offered)
  }

  /// bash hands over `--output=j` and `if=a` in three words.
  @Test(arguments: [(["info", "--output", "=", "j"], "json"), (["dd", "if", "=", "a"], "a.qcow2")])
  func bashOffersAfterAnEqualsSign(_ words: [String], _ offered: String) throws {
    try bashOffers(Line(words: words, offered: [offered]))
  }

  @Test(
    .enabled(if: path(of: "fish") != nil, "fish is not installed"), arguments: lines.filter { !$0.areFiles })
  func fishOffers(_ line: Line) throws {
    let offered = try offers(
      "fish", FishCompletion.text,
      "source $PLACE/_qemu-img; complete -C 'qemu-img \(line.words.joined(separator: " "))'")
    #expect(offered.map { $0.components(separatedBy: "\t")[0] } == line.offered)
  }

  /// zsh completes only at a terminal: it gets one, and what it lists is looked for in what it shows.
  @Test(.enabled(if: path(of: "zsh") != nil, "zsh is not installed"), arguments: lines[2...3])
  func zshOffers(_ line: Line) throws {
    let words = line.words.joined(separator: " ")
    let shown = try offers(
      "zsh", ZshCompletion.text,
      """
      zmodload zsh/zpty
      zpty z zsh -f -i
      zpty -w z "PS1=; fpath=($PLACE \\$fpath); autoload -U compinit; compinit -u; cd $PWD; stty -echo"
      zpty -w z "zstyle ':completion:*' list-prompt ''; bindkey '^I' list-choices; LISTMAX=0; print READY"
      zpty -r z seen '*READY*'
      zpty -w -n z $'qemu-img \(words)\\t'
      sleep 0.3
      zpty -w -n z $'\\C-uprint DONE\\n'
      zpty -r z seen '*DONE*'
      print -r -- "$seen"
      """
    ).joined(separator: "\n")
    for word in line.offered { #expect(shown.contains(word), "\(shown)") }
  }
}
