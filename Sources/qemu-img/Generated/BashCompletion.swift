import CommandLine

/// The completions for bash, from the table.
enum BashCompletion {
  static var text: String {
    var text = #"""
      # Completions of qemu-img for bash. Made from its table of commands: scripts/docs.

      # Words that begin like the current one.
      _qemu_img_words() {
          local word
          COMPREPLY=()
          for word in $1; do
              [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
          done
      }

      # File names that begin like the word given.
      _qemu_img_files() {
          compopt -o filenames 2>/dev/null
          mapfile -t COMPREPLY < <(compgen -f -- "$1")
      }

      _qemu_img() {
          local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
          COMPREPLY=()
          # bash takes "=" for a word of its own.
          if [[ $cur == "=" ]]; then
              cur=
          elif [[ $previous == "=" && $COMP_CWORD -gt 1 ]]; then
              previous=${COMP_WORDS[COMP_CWORD - 2]}
          fi
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
    return "        \(pattern)) \(offer(value)); return ;;\n"
  }

  /// What follows `if=`, which bash has split.
  private static func valueCase(of operand: OperandRule, _ verb: Verb) -> String {
    operand.prefix.isEmpty
      ? "" : "        '\(verb.name) \(operand.prefix.dropLast())') \(offer(operand.value)); return ;;\n"
  }

  private static func offer(_ value: ArgumentValue) -> String {
    switch value.choice {
    case .anything: "COMPREPLY=()"
    case .file: "_qemu_img_files \"$cur\""
    default: "_qemu_img_words '\(value.words.joined(separator: " "))'"
    }
  }
}
