import CommandLine
import TestSupport
import Testing

@testable import qemu_img

@Suite struct OptionParserTests {
  private let rules = [
    OptionRule.help, .format, .output, .quiet, OptionRule("options", "o", takes: .options, help: ""),
  ]

  private func parse(_ arguments: String...) -> (given: [String], operands: [String]) {
    let parsed = OptionParser.parse(["verb"] + arguments, rules)
    return (
      parsed.options.map { $0.key.isEmpty ? $0.complaint : "\($0.key)=\($0.value)" },
      parsed.operands
    )
  }

  @Test func takesOptionsAnywhere() {
    let parsed = parse("a", "-f", "raw", "b", "--output=json", "c")
    #expect(parsed.given == ["format=raw", "output=json"])
    #expect(parsed.operands == ["a", "b", "c"])
  }

  @Test func takesLettersTogetherAndValuesAttached() {
    #expect(parse("-qfraw").given == ["quiet=", "format=raw"])
    #expect(parse("-qh").given == ["quiet=", "help="])
  }

  @Test func takesLongNamesCutShort() {
    #expect(parse("--out", "json", "--form=raw").given == ["output=json", "format=raw"])
  }

  @Test func endsAtTwoHyphens() {
    let parsed = parse("-q", "--", "-f", "x")
    #expect(parsed.given == ["quiet="])
    #expect(parsed.operands == ["-f", "x"])
  }

  @Test func keepsOrderAndRepetition() {
    #expect(parse("-o", "a", "-o", "b").given == ["options=a", "options=b"])
  }

  @Test func namesWhatItDoesNotKnow() {
    #expect(parse("--bogus").given == ["unrecognized option '--bogus'"])
    #expect(parse("-x", "a").given == ["unrecognized option '-x'"])
    #expect(parse("-?").given == ["unrecognized option '-?'"])
    #expect(parse("--help=1").given == ["unrecognized option '--help=1'"])
    #expect(parse("-f").given == ["missing argument for option '-f'"])
    #expect(parse("--output").given == ["missing argument for option '--output'"])
  }

  @Test func stopsAtTheFirstOperandWhereAsked() {
    let parsed = OptionParser.parse(["tool", "-q", "verb", "-f"], rules, stoppingAtFirstOperand: true)
    #expect(parsed.options.map(\.key) == ["quiet"])
    #expect(parsed.operands == ["verb", "-f"])
  }

  /// glibc's getopt has one place in one line for the whole process.
  @Test func linesAreReadByManyThreads() {
    let rules = rules
    let wrong = Threads.run(4) { thread in
      for _ in 0..<500 {
        let words = ["verb", "-f", "a\(thread)", "one", "--output", "b\(thread)", "-q", "two"]
        let parsed = OptionParser.parse(words, rules)
        let found = parsed.options.map { "\($0.key)=\($0.value)" } + parsed.operands
        let expected = ["format=a\(thread)", "output=b\(thread)", "quiet=", "one", "two"]
        if found != expected { return "\(found)" }
      }
      return nil
    }
    #expect(wrong.isEmpty)
  }
}
