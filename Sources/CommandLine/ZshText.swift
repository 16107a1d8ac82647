/// Pieces of completions for zsh.
package enum ZshText {
  /// What `_arguments` takes: `'(-f --format)'{-f+,--format=}'[help]:value:action'`.
  package static func specification(_ option: OptionRule) -> String {
    let repeats = option.meaning.contains("may be repeated")
    let spellings = option.spellings.map { name in
      option.value == nil ? name : name + (name.hasPrefix("--") ? "=" : "+")
    }
    let exclusion = repeats ? "'*'" : quoted("(\(option.spellings.joined(separator: " ")))")
    let names = spellings.count == 1 ? spellings[0] : "{\(spellings.joined(separator: ","))}"
    let value = option.value.map { ":\(colonless($0.name)):\(action($0))" } ?? ""
    return exclusion + names + quoted("[\(bracketless(option.meaning))]\(value)")
  }

  /// What offers a value.
  package static func action(_ value: ArgumentValue) -> String {
    switch value.choice {
    case .anything: ""
    case .file: "_files"
    default: "(\(value.words.joined(separator: " ")))"
    }
  }

  /// One word of the shell.
  package static func quoted(_ text: String) -> String {
    "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
  }

  /// Text between brackets.
  package static func bracketless(_ text: String) -> String {
    text.map { "[]:\\".contains($0) ? "\\\($0)" : String($0) }.joined()
  }

  private static func colonless(_ text: String) -> String {
    text.map { $0 == ":" ? "\\:" : String($0) }.joined()
  }
}
