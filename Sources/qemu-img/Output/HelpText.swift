import CommandLine
import FormatEngine

/// What `--version` and `--help` print: the whole help in the shape of QEMU's, and that of one command.
enum HelpText {
  /// The version of QEMU whose qemu-img this one stands for.
  private static let qemuVersion = "10.0.0"
  static let ownVersion = "imgfs 0.1"

  static let version = """
    qemu-img version \(qemuVersion)
    \(ownVersion): a qemu-img of its own making, with the commands and words of QEMU's

    """

  static var whole: String {
    let commands = VerbTable.all.map { "  \($0.syntaxLine)\n" }.joined()
    return version + head + "\nCommand syntax:\n" + commands + "\n" + commonParameters
      + VerbTable.all.map(ownParameters).joined() + "\n" + formats
  }

  /// What `-h` after a command prints.
  static func of(_ verb: Verb) -> String {
    var text = "qemu-img \(verb.name): \(verb.summary)\n\nusage: qemu-img \(verb.syntaxLine)\n"
    for paragraph in verb.details { text += "\n" + TextColumns.wrapped(paragraph, first: "", indent: 0) }
    text += "\n"
    for option in verb.options {
      text += "  \(signature(option))\n" + TextColumns.wrapped(option.meaning, first: "      ", indent: 6)
    }
    for operand in verb.operands {
      if let help = operand.help ?? operand.value.ownMeaning {
        text += "  \(operand.form)\n" + TextColumns.wrapped(help, first: "      ", indent: 6)
      }
    }
    let used = verb.options.compactMap(\.value) + verb.operands.map(\.value)
    let explained = ArgumentValue.explained.filter { value in used.contains { $0.name == value.name } }
    text += "\n" + explained.map(row).joined()
    return text + "\n" + formats
  }

  /// `-f, --format=fmt`
  private static func signature(_ option: OptionRule) -> String {
    option.spellings.joined(separator: ", ") + (option.value.map { "=\($0.name)" } ?? "")
  }

  private static var head: String {
    var text = "usage: qemu-img [standard options] command [command options]\nQEMU disk image utility\n\n"
    for option in VerbTable.globalOptions {
      let names = "    " + NumberText.left(option.spellings.map { "'\($0)'" }.joined(separator: ", "), 21)
      if let value = option.value {
        text += names + value.name + "\n"
        text += TextColumns.wrapped(option.meaning, first: String(repeating: " ", count: 25), indent: 25)
      } else {
        text += TextColumns.wrapped(option.meaning, first: names, indent: 25)
      }
    }
    return text
  }

  private static var commonParameters: String {
    "Command parameters:\n" + ArgumentValue.explained.map(row).joined()
      + OptionRule.common.map(row).joined()
  }

  /// Of a command, what no other command shares.
  private static func ownParameters(_ verb: Verb) -> String {
    let options = verb.options.filter { option in
      !OptionRule.common.contains { $0.key == option.key && $0.letter == option.letter }
    }
    let rows =
      options.map(row)
      + verb.operands.compactMap { operand in
        (operand.help ?? operand.value.ownMeaning).map { row(operand.prefix + operand.value.name, $0) }
      }
    return rows.isEmpty ? "" : "\nParameters to \(verb.name) subcommand:\n" + rows.joined()
  }

  private static func row(_ value: ArgumentValue) -> String { row(value.name, value.meaning ?? "") }

  private static func row(_ option: OptionRule) -> String { row(option.form, option.meaning) }

  private static func row(_ name: String, _ text: String) -> String {
    TextColumns.wrapped(text, first: "  '\(name)' ", indent: 4)
  }

  private static var formats: String {
    let names = FormatCatalog.all.map { $0.name }.sorted().joined(separator: " ")
    return "Supported formats: \(names)\n"
  }
}
