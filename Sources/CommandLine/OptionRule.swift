/// One option that a command takes: its names, its value, and what is said of it.
package struct OptionRule: Sendable {
  /// The long name without its hyphens, by which the command knows it.
  package let key: String
  package let letter: Character?
  /// Nil for a flag.
  package let value: ArgumentValue?
  /// What it does, in one or more sentences.
  package let meaning: String
  /// How the syntax line shows it.
  package let form: String

  /// - Parameters:
  ///   - letter: where there is one the syntax line shows that.
  ///   - form: what the syntax line shows where that is neither `-f fmt` nor `--name=value`.
  package init(
    _ key: String, _ letter: Character? = nil, takes value: ArgumentValue? = nil, form: String? = nil,
    help: String
  ) {
    self.key = key
    self.letter = letter
    self.value = value
    meaning = help
    self.form =
      form ?? letter.map { "-\($0)\(value.map { " \($0.name)" } ?? "")" }
      ?? "--\(key)\(value.map { "=\($0.name)" } ?? "")"
  }

  /// All names as they are typed, the letter first.
  package var spellings: [String] { (letter.map { ["-\($0)"] } ?? []) + ["--\(key)"] }
}

/// One of the words of a command line that are no options.
package struct OperandRule: Sendable {
  /// How the syntax line shows it.
  package let form: String
  package let value: ArgumentValue
  /// What comes before the value: dd's `if=`.
  package let prefix: String
  /// Nil where the value's own meaning says enough.
  package let help: String?

  package init(_ value: ArgumentValue, prefix: String = "", form: String? = nil, _ help: String? = nil) {
    self.form = form ?? prefix + value.name
    self.value = value
    self.prefix = prefix
    self.help = help
  }
}
