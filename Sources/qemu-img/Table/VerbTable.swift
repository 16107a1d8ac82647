import CommandLine

/// One of qemu-img's commands. What it takes is said here once: the parser, the help, the manual page and the
/// shells' completions come from it.
struct Verb: Sendable {
  let name: String
  /// What it does, as a sentence without its end: "copies disks into another image".
  let summary: String
  /// Paragraphs of the manual page that say more.
  let details: [String]
  let syntax: [SyntaxPart]
  /// The first argument is the name itself. Returns the exit status.
  let run: @Sendable ([String]) throws(VerbFailure) -> CInt

  init(
    _ name: String, _ summary: String, details: [String] = [], _ syntax: [SyntaxPart],
    run: @escaping @Sendable ([String]) throws(VerbFailure) -> CInt
  ) {
    self.name = name
    self.summary = summary
    self.details = details
    self.syntax = syntax
    self.run = run
  }

  /// The line of the help: the name and what may follow it.
  var syntaxLine: String { ([name] + syntax.map(\.text)).joined(separator: " ") }

  /// All options, those that all commands have last.
  var options: [OptionRule] { syntax.flatMap(\.options) + [.allowPath, .help] }

  var operands: [OperandRule] { syntax.flatMap(\.operands) }

  /// Whether there are operands like dd's `if=`.
  var hasPrefixedOperands: Bool { operands.contains { !$0.prefix.isEmpty } }

  /// Prints what `-h` prints, and says the exit status.
  func showHelp() -> CInt {
    Console.write(HelpText.of(self))
    return 0
  }
}

enum VerbTable {
  /// What may stand before the command's name.
  static let globalOptions = [
    OptionRule("help", "h", help: "shows this help and ends"),
    OptionRule("version", "V", help: "shows the version and ends"),
    OptionRule(
      "trace", "T", takes: ArgumentValue("[[enable=]<pattern>][,events=<file>][,file=<file>]"),
      help:
        "tells of the work while it is done: what happens to files, tables and clusters. '-T help' lists the events"
    ),
    .allowPath,
  ]

  /// For those who install qemu-img: `scripts/docs`. The help does not speak of it.
  static let generator = OptionRule(
    "generate", takes: ArgumentValue("kind", .words(["man", "bash", "zsh", "fish"])),
    help: "prints the manual page, or what a shell needs to complete command lines")

  /// In the order of QEMU's help.
  static let all = [
    AmendVerb.verb, BenchVerb.verb, BitmapVerb.verb, CheckVerb.verb, CommitVerb.verb, CompareVerb.verb,
    ConvertVerb.verb,
    CreateVerb.verb, DdVerb.verb, InfoVerb.verb, MapVerb.verb, MeasureVerb.verb, SnapshotVerb.verb,
    RebaseVerb.verb, ResizeVerb.verb,
  ]

  static func verb(named name: String) -> Verb? { all.first { $0.name == name } }
}
