/// Pieces of manual pages.
package enum RoffText {
  /// An option with what it does.
  package static func entry(_ option: OptionRule) -> String {
    let names = option.spellings.map { "\\fB\(escaped($0))\\fR" }.joined(separator: ", ")
    let value = option.value.map { " \\fI\(escaped($0.name))\\fR" } ?? ""
    return ".TP\n\(names)\(value)\n\(paragraph(option.meaning))"
  }

  /// A word with what it means.
  package static func entry(_ name: String, _ text: String) -> String {
    ".TP\n\\fI\(escaped(name))\\fR\n\(paragraph(text))"
  }

  /// Text in short lines, in which nothing means anything to roff.
  package static func paragraph(_ text: String) -> String {
    TextColumns.wrapped(escaped(text), first: "", indent: 0).split(separator: "\n").map { line in
      (line.hasPrefix(".") ? "\\&" : "") + line + "\n"
    }.joined()
  }

  /// Text in which nothing means anything to roff but a dot at the beginning of a line.
  package static func escaped(_ text: String) -> String {
    text.map { character in
      switch character {
      case "\\": "\\e"
      case "-": "\\-"
      case "'": "\\(aq"
      default: String(character)
      }
    }.joined()
  }
}
