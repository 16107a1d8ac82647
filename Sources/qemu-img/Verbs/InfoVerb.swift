import FormatEngine

/// `info`: what an image is.
enum InfoVerb {
  static let usage =
    "[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename"

  private static let rules = [
    OptionRule("help", "h"), OptionRule("format", "f", takesValue: true),
    OptionRule("output", takesValue: true), OptionRule("backing-chain"),
    OptionRule("object", takesValue: true), OptionRule("image-opts"), OptionRule("force-share", "U"),
  ]

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, rules)
    var format: String?
    var output = "human"
    var showsChain = false
    for option in parsed.options {
      switch option.key {
      case "help": return Main.showHelp()
      case "format": format = option.value
      case "output": output = option.value
      case "backing-chain": showsChain = true
      case "force-share": break
      case "object", "image-opts": throw CommonArguments.unsupported("--\(option.key)")
      default: throw option.failure
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    let outputFormat = try CommonArguments.outputFormat(output)
    let images = try describe(parsed.operands[0], format: format, wholeChain: showsChain)
    switch outputFormat {
    case .human: Console.write(images.map { InfoText.of($0) }.joined(separator: "\n"))
    case .json:
      let value: InfoValue = showsChain ? .list(images.map(\.json)) : images[0].json
      Console.write(JSONText.pretty(value) + "\n")
    }
    return 0
  }

  /// Each file of the chain is opened for itself, so that an image whose backing file is missing can
  /// still be described.
  private static func describe(_ name: String, format: String?, wholeChain: Bool) throws(VerbFailure)
    -> [ImageInfo]
  {
    var options = OpenOptions(format: format)
    options.backing = .ignore
    options.isForInspection = true
    var images: [ImageInfo] = []
    var seen: Set<HostFiles.Identity> = []
    var next: String? = name
    while let current = next {
      let chain = try CommonArguments.open(current, options)
      if let file = chain.members[0].file as? FileStore, !seen.insert(file.identity).inserted {
        throw VerbFailure("Backing file '\(current)' creates an infinite loop.")
      }
      let info = try attempt { () throws(EngineError) in try ImageInfo.of(chain.members[0]) }
      images.append(info)
      guard wholeChain, let backing = info.backing else { break }
      next = info.backingPath
      if next == nil { throw VerbFailure("Could not open '\(current)': No way to its backing file") }
      options.format = backing.format
    }
    return images
  }
}
