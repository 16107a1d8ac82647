/// Text for people, in lines of at most 80 characters.
package enum TextColumns {
  package static let width = 80

  /// The words of `text` in lines. The first one begins with `first`, the others with `indent` spaces.
  package static func wrapped(_ text: String, first: String, indent: Int) -> String {
    var lines: [String] = []
    var line = first
    var isEmpty = true
    for word in text.split(separator: " ") {
      if !isEmpty && line.unicodeScalars.count + 1 + word.unicodeScalars.count > width {
        lines.append(line)
        line = String(repeating: " ", count: indent)
        isEmpty = true
      }
      line += (isEmpty ? "" : " ") + word
      isEmpty = false
    }
    return (lines + [line]).joined(separator: "\n") + "\n"
  }
}
