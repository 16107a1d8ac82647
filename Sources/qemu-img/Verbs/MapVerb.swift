import CommandLine
import FormatEngine

/// `map`: where the guest's bytes are.
enum MapVerb {
  static let verb = Verb(
    "map", "shows where the bytes of a disk are stored",
    details: [
      "For people, only what can be read straight from a file has a line: its offset on the disk, its length, its"
        + " offset in the file, and the file. As JSON all parts of the disk are there, with 'depth' (how far down"
        + " in the chain), 'present', 'zero', 'data', 'compressed', and 'offset' where there is one."
    ],
    [
      .may(.object), .may(.imageOptions), .may(.format),
      .may(
        OptionRule(
          "start-offset", "s", takes: ArgumentValue("offset"), form: "--start-offset=offset",
          help: "begins there and not at 0")),
      .may(
        OptionRule(
          "max-length", "l", takes: ArgumentValue("len"), form: "--max-length=len",
          help: "ends after so many bytes of the disk")),
      .may(.output), .may(.forceShare), .fileName,
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var output = "human"
    var start: UInt64 = 0
    var length: UInt64?
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "output": output = option.value
      case "start-offset": start = try CommonArguments.size(option.value, what: "start offset")
      case "max-length": length = try CommonArguments.size(option.value, what: "max length")
      default: try image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    let outputFormat = try CommonArguments.outputFormat(output)
    let chain = try image.open(parsed.operands[0])
    let range = start..<start + min(length ?? UInt64(Int64.max), UInt64.max - start)
    try attempt { () throws(EngineError) in
      switch outputFormat {
      case .json:
        try Mapper.writeJSON(chain, in: range) { (bytes) throws(EngineError) in Console.write(bytes: bytes) }
      case .human: try printTable(chain, range)
      }
    }
    return 0
  }

  /// Only what can be read straight from a file has a row.
  private static func printTable(_ chain: ImageChain, _ range: Range<UInt64>) throws(EngineError) {
    func row(_ a: String, _ b: String, _ c: String, _ file: String) -> String {
      NumberText.left(a, 16) + NumberText.left(b, 16) + NumberText.left(c, 16) + file + "\n"
    }
    Console.write(row("Offset", "Length", "Mapped to", "File"))
    try Mapper.walk(chain, in: range) { (entry) throws(EngineError) in
      guard entry.isData && entry.length > 0 else { return }
      guard let offset = entry.offset else {
        throw .unsupported("File contains external, encrypted or compressed clusters.")
      }
      guard !entry.isZero else { return }
      let member = chain.members[entry.depth]
      let file = (member.layer.store(entry.store) as? FileStore)?.path ?? member.path
      Console.write(
        NumberText.hexadecimalColumn(entry.start) + NumberText.hexadecimalColumn(entry.length)
          + NumberText.hexadecimalColumn(offset) + file + "\n")
    }
  }
}
