import CommandLine
import FormatEngine

/// `amend`: changes what an image's options were when it was made.
enum AmendVerb {
  static let verb = Verb(
    "amend", "changes the options that an image was made with",
    details: [
      "Which options can be changed depends on the format; -o help lists them. Where the image lies over another"
        + " file, rebase is what changes that."
    ],
    [
      .may(.object), .may(.imageOptions), .may(.progress), .may(.quiet), .may(.format), .may(.cache),
      .may(
        OptionRule(
          "force",
          help: "allows what may lose data: of LUKS, to erase the last key, and to write over a key in use")),
      .must(OptionRule("options", "o", takes: .options, help: "says what to change; may be repeated")),
      .fileName,
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var list = OptionList()
    var image = ImageArguments()
    var opening = OpenOptions(access: .readWrite)
    var cache = "writeback"
    var request = AmendRequest()
    var (showsProgress, isQuiet) = (false, false)
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "options": try list.add(option.value)
      case "progress": showsProgress = true
      case "quiet": isQuiet = true
      case "cache": cache = option.value
      case "force": request.isForced = true
      default: try image.take(option)
      }
    }
    guard !list.isEmpty else { throw .usage("Must specify options (-o)") }
    let line = ProgressLine(isShown: showsProgress && !isQuiet, step: 1)
    defer { line.end() }
    if list.asksForHelp, let format = image.format { return try showOptions(ofFormat: format) }
    guard parsed.operands.count == 1 else { throw VerbFailure("Expecting one image file name") }
    opening.cache = try CommonArguments.cacheMode(cache, what: "cache")
    request.secrets = image.secrets
    let chain = try image.open(parsed.operands[0], opening)
    if list.asksForHelp { return try showOptions(ofFormat: chain.members[0].formatName) }
    Interruption.endsWork()
    try Interruption.closing(chain) { () throws(VerbFailure) in try amend(chain, list, request, line) }
    try attempt { () throws(EngineError) in try chain.close() }
    return 0
  }

  private static func amend(
    _ chain: ImageChain, _ list: OptionList, _ request: AmendRequest, _ line: ProgressLine
  ) throws(VerbFailure) {
    let format = chain.members[0].formatName
    let schema = try schema(ofFormat: format)
    try attempt { () throws(EngineError) in
      var options = OptionValues(schema)
      if let name = list.names.first(where: { schema.option(named: $0) == nil }),
        let creatable = FormatCatalog.format(named: format) as? any CreatableFormat.Type,
        creatable.createOptions.option(named: name) != nil
      {
        throw .invalid("Invalid parameter '\(name)'\nThis option is only supported for image creation")
      }
      try list.apply(to: &options)
      line.show(0)
      // As qemu-img has it, the end is shown where it failed, too.
      defer { line.show(100) }
      try chain.amend(options, request, progress: line.progress())
    }
  }

  private static func schema(ofFormat name: String) throws(VerbFailure) -> OptionSchema {
    guard let format = FormatCatalog.format(named: name) else {
      throw VerbFailure("Unknown file format '\(name)'")
    }
    guard let amendable = format as? any AmendableFormat.Type else { throw unsupported(name) }
    return amendable.amendOptions
  }

  private static func unsupported(_ format: String) -> VerbFailure {
    VerbFailure("Format driver '\(format)' does not support option amendment")
  }

  private static func showOptions(ofFormat name: String) throws(VerbFailure) -> CInt {
    let schema = try schema(ofFormat: name)
    Console.write("Amend options for '\(name)':\n" + CreateOptionsHelp.list(schema))
    return 0
  }
}
