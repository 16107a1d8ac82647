import FormatEngine

/// What is made from the table of settings for others to install (`scripts/docs`).
enum GeneratedText {
  static func text(_ kind: String) throws(EngineError) -> String {
    throw .invalid("--generate must be used with man, bash, zsh or fish as argument")
  }
}
