/// One option that a command takes: its names, its value, and what is said of it.
struct OptionRule: Sendable {
  /// The long name without its hyphens, by which the command knows it.
  let key: String
  let letter: Character?
  /// Nil for a flag.
  let value: ArgumentValue?
  /// One or more sentences.
  let help: String
  /// How the syntax line shows it.
  let form: String

  /// - Parameters:
  ///   - letter: where there is one the syntax line shows that.
  ///   - form: what the syntax line shows where that is neither `-f fmt` nor `--name=value`.
  init(
    _ key: String, _ letter: Character? = nil, takes value: ArgumentValue? = nil, form: String? = nil,
    help: String
  ) {
    self.key = key
    self.letter = letter
    self.value = value
    self.help = help
    self.form =
      form ?? letter.map { "-\($0)\(value.map { " \($0.name)" } ?? "")" }
      ?? "--\(key)\(value.map { "=\($0.name)" } ?? "")"
  }

  /// All names as they are typed, the letter first.
  var spellings: [String] { (letter.map { ["-\($0)"] } ?? []) + ["--\(key)"] }
}

/// One of the words of a command line that are no options.
struct OperandRule: Sendable {
  /// How the syntax line shows it.
  let form: String
  let value: ArgumentValue
  /// What comes before the value: dd's `if=`.
  let prefix: String
  /// Nil where the value's own meaning says enough.
  let help: String?

  init(_ value: ArgumentValue, prefix: String = "", form: String? = nil, _ help: String? = nil) {
    self.form = form ?? prefix + value.name
    self.value = value
    self.prefix = prefix
    self.help = help
  }
}

/// A piece of a command's syntax line. The pieces in their order are all that the command takes.
indirect enum SyntaxPart: Sendable {
  /// `[-f fmt]`
  case may(OptionRule)
  /// `-o options`
  case must(OptionRule)
  /// `[-b file [-F fmt]]`: the second makes sense with the first only.
  case pair(OptionRule, OptionRule)
  /// `[a | b]`
  case oneOf([SyntaxPart])
  /// `(a | b)...`
  case several([OptionRule])
  /// Pieces that stand together in a choice.
  case together([SyntaxPart])
  case operand(OperandRule)

  var text: String {
    switch self {
    case .may(let option): "[\(option.form)]"
    case .must(let option): option.form
    case .pair(let outer, let inner): "[\(outer.form) [\(inner.form)]]"
    case .oneOf(let parts): "[" + parts.map(\.bareText).joined(separator: " | ") + "]"
    case .several(let options): "(" + options.map(\.form).joined(separator: " | ") + ")..."
    case .together(let parts): parts.map(\.text).joined(separator: " ")
    case .operand(let operand): operand.form
    }
  }

  /// In the brackets of a choice there are none around an option.
  private var bareText: String {
    if case .may(let option) = self { option.form } else { text }
  }

  var options: [OptionRule] {
    switch self {
    case .may(let option), .must(let option): [option]
    case .pair(let outer, let inner): [outer, inner]
    case .oneOf(let parts), .together(let parts): parts.flatMap(\.options)
    case .several(let options): options
    case .operand: []
    }
  }

  var operands: [OperandRule] {
    switch self {
    case .oneOf(let parts), .together(let parts): parts.flatMap(\.operands)
    case .operand(let operand): [operand]
    default: []
    }
  }
}
