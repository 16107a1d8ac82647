/// Pieces of completions for bash.
package enum BashText {
  /// The two functions that offer words and files; `prefix` begins their names.
  package static func functions(_ prefix: String) -> String {
    #"""
    # Words that begin like the current one.
    \#(prefix)_words() {
        local word
        COMPREPLY=()
        for word in $1; do
            [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
        done
    }

    # File names that begin like the word given.
    \#(prefix)_files() {
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$1")
    }


    """#
  }

  /// Lines of a function that find `cur`, what is being written, and `previous`, the word before it.
  package static let wordAtCursor = #"""
        local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
        COMPREPLY=()
        # bash takes "=" for a word of its own.
        if [[ $cur == "=" ]]; then
            cur=
        elif [[ $previous == "=" && $COMP_CWORD -gt 1 ]]; then
            previous=${COMP_WORDS[COMP_CWORD - 2]}
        fi

    """#

  /// What offers a value, by these functions.
  package static func offer(_ value: ArgumentValue, _ prefix: String) -> String {
    switch value.choice {
    case .anything: "COMPREPLY=()"
    case .file: "\(prefix)_files \"$cur\""
    default: "\(prefix)_words '\(value.words.joined(separator: " "))'"
    }
  }
}
