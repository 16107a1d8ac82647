import FormatEngine

/// What is made from the table of settings for others to install (`scripts/docs`).
enum GeneratedText {
  static func text(_ kind: String) throws(EngineError) -> String {
    switch kind {
    case "man": return ManualPage.text
    case "bash": return BashCompletion.text
    case "zsh": return ZshCompletion.text
    case "fish": return FishCompletion.text
    default: throw .invalid("--generate must be used with man, bash, zsh or fish as argument")
    }
  }

  /// Mount options as a shell offers them: `format=`, `ro`.
  static var mountOptionWords: [String] {
    let settings = SettingTable.all.compactMap { setting in
      setting.mountName.map { $0 + (setting.value == nil ? "" : "=") }
    }
    return (settings + MountOptionList.kernelFlags).sorted()
  }
}
