import CommandLine

/// The completions for fish, from the table.
enum FishCompletion {
  static var text: String {
    "# Completions of imgfs for fish. Made from its table of settings: scripts/docs.\n\n"
      + Invocation.shownOptions.map(line).joined()
  }

  private static func line(_ option: OptionRule) -> String {
    guard option.key == Invocation.mountOptionList.key else { return FishText.line("imgfs", nil, option) }
    let words = FishText.quoted(GeneratedText.mountOptionWords.joined(separator: " "))
    return "complete -c imgfs -s o -l \(option.key) -x -a \"(__fish_append , (string split ' ' \(words)))\""
      + " -d \(FishText.quoted(option.meaning))\n"
  }
}
