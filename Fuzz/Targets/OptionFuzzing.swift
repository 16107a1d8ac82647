import CommandLine
import FormatEngine

/// A command line, one argument a line: taken apart as both programs do it; each value is also read as what values can be.
enum OptionFuzzing {
  private static let rules: [OptionRule] = [
    OptionRule("format", "f", takes: ArgumentValue("FMT"), help: ""), OptionRule("help", "h", help: ""),
    OptionRule("object", takes: ArgumentValue("OBJECT"), help: ""),
    OptionRule("output", takes: ArgumentValue("OFMT"), help: ""),
    OptionRule("options", "o", takes: ArgumentValue("OPTIONS"), help: ""), OptionRule("quiet", "q", help: ""),
    OptionRule("backing", "b", takes: ArgumentValue("FILE"), help: ""), OptionRule("backing-chain", help: ""),
  ]

  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let stopsAtOperand = input.flag()
    let lines = input.rest.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    // A NUL ends an argument before it comes to a program.
    let arguments = lines.prefix(64).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    let (options, operands) = OptionParser.parse(
      ["program"] + arguments, rules, stoppingAtFirstOperand: stopsAtOperand)
    // A byte that is no text becomes three, and each letter may be an option.
    guard options.count + operands.count <= 3 * bytes.count + 1 else {
      throw FuzzFinding("\(options.count) options of \(bytes.count) bytes")
    }
    for text in options.map(\.value) + operands { readValue(text) }
  }

  private static func readValue(_ text: String) {
    _ = try? SizeText.parse(text)
    _ = try? SizeText.parse(text, unit: 512)
    _ = try? SizeText.parseOption(text, name: "size")
    var secrets = SecretStore()
    // Of files none is read: a name with a slash may be any file of this host.
    if !text.contains("/"), !text.contains("\\u") {
      _ = ObjectArguments.help(for: text)
      try? ObjectArguments.define(text, in: &secrets)
    }
    for format in FormatCatalog.all {
      guard let format = format as? any CreatableFormat.Type else { continue }
      var values = OptionValues(format.createOptions)
      for item in text.split(separator: ",") {
        let parts = item.split(separator: "=", maxSplits: 1)
        guard let name = parts.first else { continue }
        try? values.set(String(name), to: parts.count > 1 ? String(parts[1]) : "on")
      }
    }
  }
}
