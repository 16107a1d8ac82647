import CommandLine

/// The completions for fish, from the table.
enum FishCompletion {
  static var text: String {
    var text = """
      # Completions of qemu-img for fish. Made from its table of commands: scripts/docs.

      complete -c qemu-img -n __fish_use_subcommand -f

      """
    text += VerbTable.globalOptions.map { FishText.line("qemu-img", "__fish_use_subcommand", $0) }.joined()
    for verb in VerbTable.all {
      text +=
        "complete -c qemu-img -n __fish_use_subcommand -a \(verb.name) -d \(FishText.quoted(verb.summary))\n"
    }
    for verb in VerbTable.all {
      let condition = FishText.quoted("__fish_seen_subcommand_from \(verb.name)")
      text += "\n" + verb.options.map { FishText.line("qemu-img", condition, $0) }.joined()
      for operand in verb.operands where !operand.prefix.isEmpty {
        text +=
          "complete -c qemu-img -n \(condition) -a \(operand.prefix) -d \(FishText.quoted(operand.help ?? ""))\n"
      }
    }
    return text
  }
}
