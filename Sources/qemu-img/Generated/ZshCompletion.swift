import CommandLine

/// The completions for zsh, from the table.
enum ZshCompletion {
  static var text: String {
    var text = """
      #compdef qemu-img
      # Completions of qemu-img for zsh. Made from its table of commands: scripts/docs.

      _qemu_img_command() {
        local -a commands
        commands=(

      """
    text += VerbTable.all.map { "    \(quoted("\($0.name):\($0.summary)"))\n" }.joined()
    text += """
        )
        _describe -t commands command commands
      }


      """
    text += VerbTable.all.filter(\.hasPrefixedOperands).map(operandFunction).joined()
    text += """
      _qemu_img() {
        local curcontext=$curcontext state line
        _arguments -C -S \\

      """
    text += VerbTable.globalOptions.map { "    \(specification($0)) \\\n" }.joined()
    text += """
          '1: :_qemu_img_command' '*:: :->arguments' && return
        [[ $state == arguments ]] || return
        case $words[1] in

      """
    for verb in VerbTable.all {
      text += "    \(verb.name))\n      _arguments -S \\\n"
      text += verb.options.map { "        \(specification($0)) \\\n" }.joined()
      text += "        '*: :\(verb.hasPrefixedOperands ? "_qemu_img_\(verb.name)" : "_files")' ;;\n"
    }
    return text + """
        esac
      }

      _qemu_img "$@"

      """
  }

  /// For words like dd's `if=`.
  private static func operandFunction(_ verb: Verb) -> String {
    var text = "_qemu_img_\(verb.name)() {\n  case $PREFIX in\n"
    for operand in verb.operands where !operand.prefix.isEmpty {
      let offer = operand.value.choice == .file ? "_files" : "_message \(quoted(operand.value.name))"
      text += "    \(operand.prefix)*) compset -P '*='; \(offer) ;;\n"
    }
    let words = verb.operands.map(\.prefix).filter { !$0.isEmpty }
    return text + "    *) compadd -S '' -- \(words.joined(separator: " ")) ;;\n  esac\n}\n\n"
  }

  /// What `_arguments` takes: `'(-f --format)'{-f+,--format=}'[help]:value:action'`.
  private static func specification(_ option: OptionRule) -> String {
    let repeats = option.meaning.contains("may be repeated")
    let spellings = option.spellings.map { name in
      option.value == nil ? name : name + (name.hasPrefix("--") ? "=" : "+")
    }
    let exclusion = repeats ? "'*'" : quoted("(\(option.spellings.joined(separator: " ")))")
    let names = spellings.count == 1 ? spellings[0] : "{\(spellings.joined(separator: ","))}"
    let value = option.value.map { ":\(colonless($0.name)):\(action($0))" } ?? ""
    return exclusion + names + quoted("[\(bracketless(option.meaning))]\(value)")
  }

  private static func action(_ value: ArgumentValue) -> String {
    switch value.choice {
    case .anything: ""
    case .file: "_files"
    default: "(\(value.words.joined(separator: " ")))"
    }
  }

  private static func quoted(_ text: String) -> String {
    "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
  }

  private static func bracketless(_ text: String) -> String {
    text.map { "[]:\\".contains($0) ? "\\\($0)" : String($0) }.joined()
  }

  private static func colonless(_ text: String) -> String {
    text.map { $0 == ":" ? "\\:" : String($0) }.joined()
  }
}
