import CommandLine
import FormatEngine

/// `rebase`: puts an image over another file.
enum RebaseVerb {
  static let verb = Verb(
    "rebase", "puts an image over another file",
    details: [
      "The guest reads the same before and after it: what the new backing file has otherwise is copied into the"
        + " image first. With -u nothing is copied and only the name is changed, which is right where the backing"
        + " file was moved or renamed, and ruins the image where its content differs."
    ],
    [
      .may(.object), .may(.imageOptions), .may(.forceShare), .may(.quiet), .may(.format), .may(.cache),
      .may(
        OptionRule("backing-cache", "T", takes: .sourceCache, help: "says how the backing files are read")),
      .may(.progress),
      .may(OptionRule("backing-unsafe", "u", help: "only records the new backing file")),
      .may(OptionRule("compress", "c", help: "stores compressed what is copied into the image")),
      .must(
        OptionRule("backing", "b", takes: .backingFile, help: "names the new file to lie over, '' for none")),
      .may(.backingFormat), .fileName,
    ], run: run)

  private struct Request {
    var image = ImageArguments()
    var options = OpenOptions(access: .readWrite)
    var backingCache = CacheMode.writeback
    /// Nil and empty both mean none.
    var backing: (file: String?, format: String?)
    /// Who else may change the new backing file. The image itself is nobody else's.
    var sharing = Sharing.asFormatAllows
    var (isUnsafe, compresses, showsProgress, isQuiet) = (false, false, false, false)

    /// What the image is to record.
    var reference: BackingReference? {
      guard let name = backing.file, !name.isEmpty else { return nil }
      return BackingReference(name: name, format: backing.format)
    }
  }

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var request = Request()
    var caches = (target: "writeback", source: "writeback")
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "backing-format": request.backing.format = option.value
      case "backing": request.backing.file = option.value
      case "cache": caches.target = option.value
      case "backing-cache": caches.source = option.value
      case "backing-unsafe": request.isUnsafe = true
      case "compress": request.compresses = true
      case "progress": request.showsProgress = true
      case "quiet": request.isQuiet = true
      case "force-share": request.sharing = .anybody
      default: try request.image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    guard request.isUnsafe || request.backing.file != nil else {
      throw .usage("Must specify backing file (-b) or use unsafe mode (-u)")
    }
    request.options.cache = try CommonArguments.cacheMode(caches.target, what: "cache")
    request.backingCache = try CommonArguments.cacheMode(caches.source, what: "source cache")
    let line = ProgressLine(isShown: request.showsProgress && !request.isQuiet, step: 1)
    line.show(0)
    defer { line.end() }
    try rebase(parsed.operands[0], request, line)
    line.show(100)
    return 0
  }

  private static func rebase(_ name: String, _ request: Request, _ line: ProgressLine) throws(VerbFailure) {
    var options = request.options
    // Renaming must work where the old backing file is gone.
    if request.isUnsafe { options.backing = .ignore }
    let overlay = try request.image.open(name, options)
    Interruption.endsWork()
    if let format = request.backing.format, !ImageName.isDriver(format) {
      throw VerbFailure("Invalid format name: '\(format)'")
    }
    if request.compresses && !(overlay.top is any CompressedWriting) {
      throw VerbFailure("Compression not supported for this file format")
    }
    try change(request) { () throws(EngineError) in
      _ = try Rebaser.changer(of: overlay)
    }
    let backing = request.isUnsafe ? nil : try openBacking(request, of: overlay)
    try change(request) { () throws(EngineError) in
      guard request.reference == nil || request.backing.format != nil else {
        throw .invalid("backing format must be specified")
      }
    }
    try Interruption.closing(overlay) { () throws(VerbFailure) in
      if !request.isUnsafe {
        try attempt { () throws(EngineError) in
          try Rebaser.copyDifferences(
            into: overlay, from: backing, compress: request.compresses, progress: line.progress())
        }
      }
      try change(request) { () throws(EngineError) in
        try Rebaser.setBacking(of: overlay, to: request.reference)
      }
    }
  }

  private static func openBacking(_ request: Request, of overlay: ImageChain) throws(VerbFailure)
    -> ImageChain?
  {
    guard let reference = request.reference else { return nil }
    var options = try request.image.completed(OpenOptions())
    return try attempt("Could not open new backing file '\(reference.name)': ") { () throws(EngineError) in
      let specification = try ReferencePolicy.anywhere.specification(
        of: reference, namedBy: overlay.members[0].path)
      options.sharing = request.sharing
      options.cache = request.backingCache
      let backing = try ImageOpener.open(specification, options)
      let identity = (overlay.members[0].file as? FileStore)?.identity
      if backing.members.contains(where: { ($0.file as? FileStore)?.identity == identity }) {
        throw .lockRefused("shared \"write\"", overlay.members[0].path)
      }
      return backing
    }
  }

  private static func change(_ request: Request, _ body: () throws(EngineError) -> Void) throws(VerbFailure) {
    do throws(EngineError) {
      try body()
    } catch {
      let reason = error.code == .noSpace ? "No space left in the file header" : error.text
      throw VerbFailure("Could not change the backing file to '\(request.backing.file ?? "")': \(reason)")
    }
  }
}
