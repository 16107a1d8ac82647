/// Pieces of completions for fish.
package enum FishText {
  /// The line that offers an option of a program, where `condition` holds; nil for everywhere.
  package static func line(_ program: String, _ condition: String?, _ option: OptionRule) -> String {
    var text = "complete -c \(program)" + (condition.map { " -n \($0)" } ?? "")
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
  package static func quoted(_ text: String) -> String {
    "'" + text.map { "\\'".contains($0) ? "\\\($0)" : String($0) }.joined() + "'"
  }
}
