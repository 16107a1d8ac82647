import CommandLine
import FormatEngine

/// `info`: what an image is.
enum InfoVerb {
  static let verb = Verb(
    "info", "tells what an image is",
    [
      .may(.object), .may(.imageOptions), .may(.format), .may(.output),
      .may(OptionRule("backing-chain", help: "tells of all images of the chain, from the top down")),
      .may(.forceShare), .fileName,
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var output = "human"
    var showsChain = false
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "output": output = option.value
      case "backing-chain": showsChain = true
      default: try image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    let outputFormat = try CommonArguments.outputFormat(output)
    let images = try describe(parsed.operands[0], image, wholeChain: showsChain)
    switch outputFormat {
    case .human:
      for (index, info) in images.enumerated() {
        if index > 0 { Console.write("\n") }
        InfoText.write(info) { Console.write($0) }
      }
    case .json:
      let value: InfoValue = showsChain ? .list(images.map(\.json)) : images[0].json
      JSONText.write(value) { Console.write($0) }
      Console.write("\n")
    }
    return 0
  }

  private static let maximumSnapshotCount = 65536

  /// Each file of the chain is opened for itself, so that an image whose backing file is missing can
  /// still be described.
  private static func describe(_ name: String, _ image: ImageArguments, wholeChain: Bool) throws(VerbFailure)
    -> [ImageInfo]
  {
    var options = OpenOptions()
    options.backing = .ignore
    options.searchesForParents = wholeChain
    options.isForInspection = true
    options.readsContent = false
    options.sharing = image.sharing
    var chain = try image.open(name, options)
    var current = name
    var images: [ImageInfo] = []
    var snapshotCount = 0
    // Several disks may lie in one file, told apart by options.
    var layerOptions: [String: String] = [:]
    var seen: [HostFiles.Identity: [[String: String]]] = [:]
    options = try image.completed(options)
    while true {
      if let file = chain.members[0].file as? FileStore {
        guard seen[file.identity]?.contains(layerOptions) != true else {
          throw VerbFailure("Backing file '\(current)' creates an infinite loop.")
        }
        seen[file.identity, default: []].append(layerOptions)
      }
      let member = chain.members[0]
      let info = try attempt("Could not open '\(current)': ") { () throws(EngineError) in
        try ImageInfo.of(member)
      }
      images.append(info)
      // As many as one image may have: more would not be shown in little memory.
      snapshotCount += info.snapshots.count
      guard snapshotCount <= maximumSnapshotCount else {
        throw VerbFailure("The images of the chain have more than \(maximumSnapshotCount) snapshots together")
      }
      guard wholeChain, let backing = info.backing else { break }
      let below = try attempt("Could not open '\(current)': ") { () throws(EngineError) in
        try options.policy.specification(of: backing, namedBy: member.path)
      }
      (current, layerOptions) = (info.backingPath ?? backing.name, backing.options)
      chain = try attempt("Could not open '\(current)': ") { () throws(EngineError) in
        try ImageOpener.open(below, options)
      }
    }
    return images
  }
}
