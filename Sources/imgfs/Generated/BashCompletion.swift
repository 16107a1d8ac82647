import CommandLine

/// The completions for bash, from the table.
enum BashCompletion {
  static var text: String {
    let options = Invocation.shownOptions
    var text = #"""
      # Completions of imgfs for bash. Made from its table of settings: scripts/docs.


      """# + BashText.functions("_imgfs") + #"""
        # Mount options: the last one of a list, after the others.
        _imgfs_mount_options() {
            local before='' last=$cur word
            [[ $cur == *,* ]] && before=${cur%,*}, last=${cur##*,}
            compopt -o nospace 2>/dev/null
            COMPREPLY=()
            for word in $1; do
                [[ $word == "$last"* ]] && COMPREPLY+=("$before$word")
            done
        }

        _imgfs() {

        """# + BashText.wordAtCursor + #"""
            case $previous in

        """#
    for option in options {
      guard let value = option.value else { continue }
      let offer =
        option.key == Invocation.mountOptionList.key
        ? "_imgfs_mount_options '\(GeneratedText.mountOptionWords.joined(separator: " "))'"
        : BashText.offer(value, "_imgfs")
      text += "        \(option.spellings.joined(separator: "|"))) \(offer); return ;;\n"
    }
    return text + """
          esac
          [[ $cur == -* ]] && { _imgfs_words '\(options.flatMap(\.spellings).joined(separator: " "))'; return; }
          _imgfs_files "$cur"
      }

      complete -F _imgfs imgfs

      """
  }
}
