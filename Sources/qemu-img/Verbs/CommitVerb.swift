import CommandLine
import FormatEngine

/// `commit`: writes what an image holds into the image below it.
enum CommitVerb {
  static let verb = Verb(
    "commit", "writes what an image holds into the image below it",
    details: [
      "If the lower image is smaller it grows; if it is larger it keeps its size. Afterwards the upper image is"
        + " empty, unless -d or -b is given."
    ],
    [
      .may(.object), .may(.imageOptions), .may(.quiet), .may(.format), .may(.cache),
      .may(
        OptionRule(
          "base", "b", takes: ArgumentValue("base", .file),
          help:
            "commits into that image of the chain and not into the next one. What lies between reads as anything"
            + " afterwards; so -b implies -d")),
      .may(OptionRule.rateLimit),
      .may(OptionRule("drop", "d", help: "leaves the image as it is when all is committed")),
      .may(.progress), .fileName,
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var options = OpenOptions(access: .readWrite)
    var (base, cache): (String?, String) = (nil, "writeback")
    var (keepsContent, showsProgress, isQuiet) = (false, false, false)
    var rateLimit: UInt64?
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "cache": cache = option.value
      case "base":
        base = option.value
        // Images between the base and the top may read as anything afterwards: the top must stay whole.
        keepsContent = true
      case "drop": keepsContent = true
      case "progress": showsProgress = true
      case "quiet": isQuiet = true
      case "rate-limit": rateLimit = try CommonArguments.rateLimit(option.value)
      default: try image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    options.cache = try CommonArguments.cacheMode(cache, what: "cache")
    options.identities = try SourceDate.identities()
    options = try image.completed(options)
    let name = parsed.operands[0]
    let chain = try image.open(name, options)
    let line = ProgressLine(isShown: showsProgress && !isQuiet, step: 1)
    line.show(0)
    do {
      defer { line.end() }
      let depth = try depth(of: base, in: chain, name)
      Interruption.endsWork()
      try commit(chain, at: depth, options, rateLimit: rateLimit, line)
    }
    if !keepsContent {
      try attempt("Failed to empty \(name): ") { () throws(EngineError) in
        // As qemu-img: what cannot be emptied stays as it is.
        if chain.top is any Emptyable { try Committer.empty(chain) }
      }
    }
    if !isQuiet { Console.write("Image committed.\n") }
    return 0
  }

  private static func depth(of base: String?, in chain: ImageChain, _ name: String) throws(VerbFailure) -> Int
  {
    guard let base else {
      guard chain.members.count > 1 else { throw VerbFailure("Image does not have a backing file") }
      return 1
    }
    guard let depth = Committer.depth(of: base, in: chain) else {
      throw VerbFailure("Did not find '\(base)' in the backing chain of '\(name)'")
    }
    return depth
  }

  private static func commit(
    _ chain: ImageChain, at depth: Int, _ options: OpenOptions, rateLimit: UInt64?, _ line: ProgressLine
  ) throws(VerbFailure) {
    let base = try attempt { () throws(EngineError) in
      try ImageOpener.reopenForWriting(chain, from: depth, options)
    }
    guard base.isWritable else {
      throw VerbFailure("Block job failed: Format '\(base.members[0].formatName)' cannot be written")
    }
    do throws(EngineError) {
      try Committer.commit(chain, at: depth, into: base, rateLimit: rateLimit, progress: line.progress())
    } catch {
      // A base that cannot grow has no more to say in a block job.
      let reason =
        error.code == .unsupported
        ? EngineError.systemErrorText(error.errno) : error.systemText ?? error.text
      throw VerbFailure("Block job failed: \(reason)")
    }
    line.show(100)
  }
}
