import CommandLine

/// The completions for fish, from the table.
enum FishCompletion {
  static var text: String {
    var text = """
      # Completions of qemu-img for fish. Made from its table of commands: scripts/docs.

      complete -c qemu-img -n __fish_use_subcommand -f

      """
    text += VerbTable.globalOptions.map { line("__fish_use_subcommand", $0) }.joined()
    for verb in VerbTable.all {
      text += "complete -c qemu-img -n __fish_use_subcommand -a \(verb.name) -d \(quoted(verb.summary))\n"
    }
    for verb in VerbTable.all {
      let condition = quoted("__fish_seen_subcommand_from \(verb.name)")
      text += "\n" + verb.options.map { line(condition, $0) }.joined()
      for operand in verb.operands where !operand.prefix.isEmpty {
        text += "complete -c qemu-img -n \(condition) -a \(operand.prefix) -d \(quoted(operand.help ?? ""))\n"
      }
    }
    return text
  }

  private static func line(_ condition: String, _ option: OptionRule) -> String {
    var text = "complete -c qemu-img -n \(condition)"
    if let letter = option.letter { text += " -s \(letter)" }
    text += " -l \(option.key)"
    if let value = option.value {
      switch value.choice {
      case .anything: text += " -x"
      case .file: text += " -r -F"
      default: text += " -x -a \(quoted(value.words.joined(separator: " ")))"
      }
    }
    return text + " -d \(quoted(option.meaning))\n"
  }

  /// Between single quotes only these two mean anything to fish.
  private static func quoted(_ text: String) -> String {
    "'" + text.map { "\\'".contains($0) ? "\\\($0)" : String($0) }.joined() + "'"
  }
}
