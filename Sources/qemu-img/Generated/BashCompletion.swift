import CommandLine

/// The completions for bash, from the table.
enum BashCompletion {
  static var text: String {
    var text = #"""
      # Completions of qemu-img for bash. Made from its table of commands: scripts/docs.


      """# + BashText.functions("_qemu_img") + #"""
        _qemu_img() {
            local verb='' i

        """# + BashText.wordAtCursor + #"""
            for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in

        """#
    let valued = VerbTable.globalOptions.filter { $0.value != nil }
    text +=
      "            \(valued.flatMap(\.spellings).joined(separator: "|"))) ((i++)); [[ ${COMP_WORDS[i]} == '=' ]] && ((i++)) ;;\n"
    text += "            -*|=) ;;\n            *) verb=${COMP_WORDS[i]}; break ;;\n"
    text += "        esac\n    done\n    case \"$verb $previous\" in\n"
    for verb in VerbTable.all { text += verb.options.map { valueCase(of: $0, verb) }.joined() }
    for verb in VerbTable.all { text += verb.operands.map { valueCase(of: $0, verb) }.joined() }
    text += "    esac\n    case $verb in\n"
    let global = VerbTable.globalOptions.flatMap(\.spellings) + VerbTable.all.map(\.name)
    text += "        '') _qemu_img_words '\(global.joined(separator: " "))'; return ;;\n"
    for verb in VerbTable.all {
      let options = verb.options.flatMap(\.spellings).joined(separator: " ")
      text += "        \(verb.name)) [[ $cur == -* ]] && { _qemu_img_words '\(options)'; return; }"
      let prefixes = verb.operands.map(\.prefix).filter { !$0.isEmpty }
      if !prefixes.isEmpty {
        text +=
          "\n            compopt -o nospace 2>/dev/null; _qemu_img_words '\(prefixes.joined(separator: " "))'; return"
      }
      text += " ;;\n"
    }
    return text + """
          esac
          _qemu_img_files "$cur"
      }

      complete -F _qemu_img qemu-img

      """
  }

  /// What follows an option that takes a value.
  private static func valueCase(of option: OptionRule, _ verb: Verb) -> String {
    guard let value = option.value else { return "" }
    let pattern = option.spellings.map { "'\(verb.name) \($0)'" }.joined(separator: "|")
    return "        \(pattern)) \(BashText.offer(value, "_qemu_img")); return ;;\n"
  }

  /// What follows `if=`, which bash has split.
  private static func valueCase(of operand: OperandRule, _ verb: Verb) -> String {
    operand.prefix.isEmpty
      ? ""
      : "        '\(verb.name) \(operand.prefix.dropLast())') \(BashText.offer(operand.value, "_qemu_img")); return ;;\n"
  }
}
