import CommandLine

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
