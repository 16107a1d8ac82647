internal import CLinux
import FormatEngine
import Glibc

/// An option as it was given, or why the command line is wrong from there on.
package struct GivenOption: Sendable {
  /// Empty for an option that no rule has.
  package let key: String
  package let value: String
  /// What is wrong with it where no rule, or no command, has it.
  package let complaint: String
  /// The letter that no rule has; the complaint has the whole word, or the one before it.
  package let unknownLetter: Character?
}

/// Takes command lines apart by the rules of glibc's getopt_long: options anywhere, letters joined, long
/// names cut short, `--` at the end.
package enum OptionParser {
  /// The first argument is the command's name. A wrong option comes as one that no command knows.
  package static func parse(
    _ arguments: [String], _ rules: [OptionRule], stoppingAtFirstOperand: Bool = false
  ) -> (options: [GivenOption], operands: [String]) {
    turn.withLock { _ in parsed(arguments, rules, stoppingAtFirstOperand: stoppingAtFirstOperand) }
  }

  /// getopt_long keeps its place in the line in globals.
  private static let turn = Guarded(())

  private static func parsed(
    _ arguments: [String], _ rules: [OptionRule], stoppingAtFirstOperand: Bool
  ) -> (options: [GivenOption], operands: [String]) {
    var argv = unsafe copies(of: arguments)
    unsafe argv.append(nil)
    let names = unsafe copies(of: rules.map(\.key))
    defer {
      unsafe argv.forEach { unsafe free($0) }
      unsafe names.forEach { unsafe free($0) }
    }
    // Letters have their own codes; long names get what lies above all letters.
    var table: [CLinux.option] = unsafe []
    for (index, rule) in rules.enumerated() {
      let code = CInt(firstLongCode + index)
      unsafe table.append(
        CLinux.option(name: names[index], has_arg: rule.value != nil ? 1 : 0, flag: nil, val: code))
    }
    unsafe table.append(CLinux.option())
    let letters = rules.compactMap { rule in rule.letter.map { "\($0)\(rule.value != nil ? ":" : "")" } }
    let short = (stoppingAtFirstOperand ? "+:" : ":") + letters.joined()

    // SAFETY: argv and the table end with a null entry, as getopt_long wants it; the strings live until
    // the end of this function. getopt_long moves entries of argv but keeps all of them.
    var given: [GivenOption] = []
    imgfs_getopt_restart()
    while true {
      let code = unsafe getopt_long(CInt(arguments.count), &argv, short, table, nil)
      if code == -1 { break }
      let last = unsafe argv[max(Int(imgfs_getopt_next()) - 1, 0)].map { unsafe String(hostBytes: $0) } ?? ""
      let value = unsafe imgfs_getopt_value().map { unsafe String(hostBytes: $0) } ?? ""
      given.append(option(code, rules, value: value, last: last))
    }
    // Operands were moved behind the options.
    let operands = unsafe argv[Int(imgfs_getopt_next())..<arguments.count].compactMap {
      unsafe $0.map { unsafe String(hostBytes: $0) }
    }
    return (given, operands)
  }

  private static func copies(of texts: [String]) -> [UnsafeMutablePointer<CChar>?] {
    unsafe texts.map { unsafe $0.withHostBytes { unsafe strdup($0) } }
  }

  private static let firstLongCode = 1000

  private static func option(_ code: CInt, _ rules: [OptionRule], value: String, last: String) -> GivenOption
  {
    if code == CInt(UInt8(ascii: ":")) {
      return GivenOption(
        key: "", value: "", complaint: "missing argument for option '\(last)'", unknownLetter: nil)
    }
    let index = Int(code) - firstLongCode
    let rule =
      rules.indices.contains(index)
      ? rules[index]
      : rules.first { $0.letter?.asciiValue.map(CInt.init) == code && code != CInt(UInt8(ascii: "?")) }
    let letter = rule == nil ? UInt8(exactly: imgfs_getopt_letter()).flatMap { $0 == 0 ? nil : $0 } : nil
    return GivenOption(
      key: rule?.key ?? "", value: value, complaint: "unrecognized option '\(last)'",
      unknownLetter: letter.map { Character(Unicode.Scalar($0)) })
  }
}
