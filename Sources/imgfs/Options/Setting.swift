import CommandLine

/// One setting of a mount: how command lines and lists of mount options say it, and what it changes.
struct Setting: Sendable {
  /// Where it can be said.
  enum Place {
    case option, mountOption, both
  }

  /// As it was said.
  struct Given {
    /// `--backing`, or `The mount option 'backing'`.
    let spelling: String
    /// Empty for a flag.
    let value: String
  }

  typealias Effect = @Sendable (inout MountOptions, Given) throws(UsageError) -> Void

  /// The long option without its hyphens; the mount option is the same with underscores.
  let key: String
  let letter: Character?
  let place: Place
  /// Nil for a flag.
  let value: ArgumentValue?
  /// What it does, as a phrase for the help.
  let meaning: String
  /// Whether each time that it is given adds to the others.
  let isRepeated: Bool
  let apply: Effect

  init(
    _ key: String, _ letter: Character? = nil, as place: Place, takes value: ArgumentValue? = nil,
    isRepeated: Bool = false, _ meaning: String, apply: @escaping Effect
  ) {
    self.key = key
    self.letter = letter
    self.place = place
    self.value = value
    self.isRepeated = isRepeated
    self.meaning = meaning
    self.apply = apply
  }

  /// Nil where only a list of mount options says it.
  var option: OptionRule? {
    guard place != .mountOption else { return nil }
    return OptionRule(key, letter, takes: value, help: meaning)
  }

  /// Nil where only the command line says it.
  var mountName: String? {
    place == .option ? nil : String(key.map { $0 == "-" ? "_" : $0 })
  }
}

/// A command line that makes no sense, in one sentence.
struct UsageError: Error, Equatable {
  var sentence: String
}
