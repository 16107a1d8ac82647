import CommandLine

/// The completions for zsh, from the table.
enum ZshCompletion {
  static var text: String {
    """
    #compdef imgfs
    # Completions of imgfs for zsh. Made from its table of settings: scripts/docs.

    _imgfs_mount_options() {
      _values -s , 'mount option' \\
    \(mountOptions)
    }

    _arguments -S \\

    """ + Invocation.shownOptions.map { "  \(specification($0)) \\\n" }.joined() + "  '*: :_files'\n"
  }

  private static func specification(_ option: OptionRule) -> String {
    guard option.key == Invocation.mountOptionList.key else { return ZshText.specification(option) }
    return "'*'{-o+,--\(option.key)=}" + ZshText.quoted("[\(option.meaning)]:LIST:_imgfs_mount_options")
  }

  private static var mountOptions: String {
    let words = GeneratedText.mountOptionWords.map { word in
      let meaning = SettingTable.all.first {
        $0.mountName == word.split(separator: "=").first.map(String.init)
      }?
      .meaning
      let name = word.hasSuffix("=") ? String(word.dropLast()) : word
      let help = meaning.map { "[\(ZshText.bracketless($0))]" } ?? ""
      return "    " + ZshText.quoted(name + help + (word.hasSuffix("=") ? ":value: " : ""))
    }
    return words.joined(separator: " \\\n")
  }
}
