import CommandLine
import Foundation
import TestSupport
import Testing

@testable import qemu_img

/// The table of commands, and what is made from it.
@Suite struct VerbTableTests {
  @Test(arguments: VerbTable.all.map(\.name))
  func everyOptionOfTheTableIsTaken(_ name: String) throws {
    let verb = try #require(VerbTable.verb(named: name))
    for option in verb.options where option.key != "help" {
      for spelling in option.spellings {
        do throws(VerbFailure) {
          _ = try verb.run([name, spelling] + (option.value == nil ? [] : ["no-value"]) + ["--no-option"])
          Issue.record("\(name) \(spelling): nothing was wrong with --no-option")
        } catch {
          #expect(!error.messages[0].hasPrefix("unrecognized option '\(spelling)'"), "\(name) \(spelling)")
        }
      }
    }
  }

  @Test(arguments: VerbTable.all.map(\.name))
  func noTwoOptionsOfACommandShareAName(_ name: String) throws {
    let spellings = try #require(VerbTable.verb(named: name)).options.flatMap(\.spellings)
    #expect(Set(spellings).count == spellings.count)
  }

  /// All that QEMU's help lists for a command is in ours; it leaves out some that it takes.
  @Test func syntaxLinesHoldWhatTheJudgeLists() throws {
    let help = try TestProcess.run([ReferenceTool.qemuImg.path, "--help"]).expecting().stdoutText
    let lines = help.components(separatedBy: "Command syntax:\n")[1].components(separatedBy: "\n\n")[0]
    for line in lines.split(separator: "\n").map({ $0.split(separator: " ").map(String.init) }) {
      guard let verb = VerbTable.verb(named: line[0]) else { continue }
      let words = Set(verb.syntaxLine.split(separator: " ").map { $0.trimmingCharacters(in: ["[", "]"]) })
      for word in line.map({ $0.trimmingCharacters(in: ["[", "]"]) }) {
        #expect(words.contains(word), "\(verb.name) \(word)")
      }
    }
  }

  @Test(arguments: ["man", "bash", "zsh", "fish"])
  func filesMadeFromTheTableAreUpToDate(_ kind: String) throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../..")
    let (name, text) =
      switch kind {
      case "man": ("Docs/qemu-img.1", ManualPage.text)
      case "bash": ("Docs/completions/qemu-img.bash", BashCompletion.text)
      case "zsh": ("Docs/completions/_qemu-img", ZshCompletion.text)
      default: ("Docs/completions/qemu-img.fish", FishCompletion.text)
      }
    let file = try String(contentsOf: root.appendingPathComponent(name), encoding: .utf8)
    #expect(file == text, "scripts/docs writes \(name) anew")
  }

  @Test func helpOfACommandExplainsEachOfItsOptions() {
    for verb in VerbTable.all {
      let help = HelpText.of(verb)
      for option in verb.options {
        #expect(
          help.contains("\n  " + option.spellings.joined(separator: ", ")), "\(verb.name) \(option.key)")
      }
      #expect(help.contains("usage: qemu-img \(verb.syntaxLine)\n"))
    }
  }

  @Test func linesForPeopleFitOn80Columns() {
    let long = VerbTable.all.flatMap { HelpText.of($0).split(separator: "\n") }.filter {
      $0.count > 80 && !$0.hasPrefix("usage:") && !$0.hasPrefix("Supported formats:")
    }
    #expect(long.isEmpty)
  }
}
