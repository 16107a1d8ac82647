import FormatEngine

/// What follows an option, or stands for itself as an operand: the name that the help gives it, and what can
/// stand there.
package struct ArgumentValue: Sendable {
  /// What a shell can offer for it.
  package enum Choice: Equatable, Sendable {
    case anything, file, format, writableFormat
    case words([String])
  }

  package let name: String
  package let choice: Choice
  /// A sentence or more where the name does not say it all.
  package let meaning: String?

  package init(_ name: String, _ choice: Choice = .anything, _ meaning: String? = nil) {
    self.name = name
    self.choice = choice
    self.meaning = meaning
  }

  /// The words that a shell offers.
  package var words: [String] {
    switch choice {
    case .anything, .file: []
    case .format: FormatCatalog.all.map { $0.name }.sorted()
    case .writableFormat:
      FormatCatalog.all.filter { $0 is any CreatableFormat.Type }.map { $0.name }.sorted()
    case .words(let words): words
    }
  }
}
