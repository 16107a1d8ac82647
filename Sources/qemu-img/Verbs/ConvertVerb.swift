import CommandLine
import FormatEngine

/// `convert`: copies disks into another image.
enum ConvertVerb {
  static let verb = Verb(
    "convert", "copies disks into another image", details: details,
    [
      .may(.object), .may(.imageOptions), .may(targetImageOptions), .may(targetIsZero),
      .pair(bitmaps, skipBrokenBitmaps), .may(.forceShare), .may(copyRange), .may(compress), .may(.progress),
      .may(.quiet), .may(noCreate), .may(sourceFormat), .may(targetCache), .may(sourceCache),
      .may(.targetFormat),
      .pair(backing, .backingFormat), .may(.targetOptions), .may(.snapshot), .may(sparseSize),
      .may(.rateLimit),
      .may(parallel), .may(anyOrder), .may(salvage),
      .operand(OperandRule(.fileName, form: "filename [filename2 [...]]")),
      .operand(OperandRule(.outputFileName)),
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    switch try ConvertArguments.read(arguments) {
    case .help: return verb.showHelp()
    case .optionsHelp(let format, let hasFileName):
      return try CreateOptionsHelp.show(format: format, hasFileName: hasFileName)
    case .convert(let arguments):
      try convert(arguments)
      return 0
    }
  }

  private static func convert(_ arguments: ConvertArguments) throws(VerbFailure) {
    let line = ProgressLine(
      isShown: arguments.showsProgress && !arguments.isQuiet, step: 1,
      target: arguments.targetSpecification)
    line.show(0)
    defer { line.end() }
    var source = try CopySource.open(
      arguments.sources, arguments.source, cache: arguments.cache.source, sharing: .readersOnly)
    let bitmaps = arguments.copiesBitmaps ? try self.bitmaps(of: source, arguments) : nil
    if let choice = arguments.snapshot { source = try snapshot(choice, of: source) }
    let byteCount = try source.byteCount()
    let target = try openTarget(arguments, source, byteCount)
    if bitmaps != nil && !BitmapCopier.canCopy(to: target.top) {
      throw VerbFailure("Format driver '\(target.members[0].formatName)' does not support bitmaps")
    }
    // What was made for this is thrown away after all; what was there before is closed.
    if !arguments.createsTarget { Interruption.endsWork() }
    try Interruption.closing(target) { () throws(VerbFailure) in
      try copy(source, to: target, arguments, line.progress())
      if let bitmaps {
        for name in bitmaps.skipped { Console.error("warning: Skipping inconsistent bitmap '\(name)'") }
        try attempt { () throws(EngineError) in try bitmaps.copy(to: target) }
      }
    }
    try attempt("Could not flush '\(arguments.target)': ") { () throws(EngineError) in try target.close() }
    line.show(100)
  }

  private static func snapshot(_ choice: SnapshotChoice, of source: CopySource) throws(VerbFailure)
    -> CopySource
  {
    if case .stream(let stream, _) = source {
      throw VerbFailure("Failed to load snapshot: '\(stream.formatName)' in a pipe has no snapshots")
    }
    guard source.disks.count == 1 else {
      throw VerbFailure("No support for concatenating multiple snapshot")
    }
    return .disks([try choice.open(in: source.disks[0])])
  }

  /// The bitmaps to copy, looked at before anything is made.
  private static func bitmaps(of source: CopySource, _ arguments: ConvertArguments)
    throws(VerbFailure) -> BitmapCopier
  {
    if case .stream(let stream, _) = source {
      throw VerbFailure("'\(stream.formatName)' in a pipe has no bitmaps")
    }
    let sources = source.disks
    guard sources.count == 1 else { throw VerbFailure("Copying bitmaps only possible with single source") }
    return try attempt { () throws(EngineError) in
      try BitmapCopier(from: sources[0].top, skippingBroken: arguments.skipsBrokenBitmaps)
    }
  }

  private static func openTarget(_ arguments: ConvertArguments, _ source: CopySource, _ byteCount: UInt64)
    throws(VerbFailure) -> ImageChain
  {
    let name = arguments.target
    let format = arguments.targetFormat ?? (arguments.usesTargetOptions ? nil : "raw")
    var opening = OpenOptions(access: .readWrite)
    opening.cache = arguments.cache.target
    let identities = try identities(arguments, format, source)
    opening.identities = identities
    if arguments.createsTarget {
      if ImageCreator.isPipe(name) {
        return try createInPipe(arguments, format ?? "raw", source, byteCount, identities)
      }
      opening.layerOptions = try create(arguments, format ?? "raw", source, byteCount, identities)
    }
    let target = try arguments.source.open(
      name, opening, format: format, isOptions: arguments.usesTargetOptions, isOwn: arguments.createsTarget)
    guard target.isWritable else {
      throw VerbFailure(
        "Could not open '\(name)': Format '\(target.members[0].formatName)' cannot be written")
    }
    if arguments.compresses && !(target.top is any CompressedWriting) {
      throw VerbFailure("Compression not supported for this file format")
    }
    guard target.virtualSize >= byteCount else { throw VerbFailure("output file is smaller than input file") }
    return target
  }

  /// Ids of a target that has them are those of what the sources hold, where they are derived at all.
  private static func identities(
    _ arguments: ConvertArguments, _ format: String?, _ source: CopySource
  ) throws(VerbFailure) -> IdentitySource {
    // Of a target that is there its own file may have to tell its format.
    guard format.map(ImageCreator.recordsIdentity) ?? true else { return try SourceDate.identities() }
    return try source.identities(skippingUnreadable: arguments.salvages)
  }

  /// The format of the new image, and what it is made with.
  private static func plan(
    _ arguments: ConvertArguments, _ formatName: String, _ source: CopySource, _ byteCount: UInt64
  ) throws(VerbFailure) -> (any CreatableFormat.Type, OptionValues) {
    let format = try attempt { () throws(EngineError) in try ImageCreator.creatableFormat(formatName) }
    _ = try attempt { () throws(EngineError) in try ImageName.plainPath(arguments.target) }
    let options = try targetOptions(arguments, format, source.disks.count, byteCount)
    try source.requireRoom(in: format, preallocation: options.text("preallocation"))
    return (format, options)
  }

  private static func createInPipe(
    _ arguments: ConvertArguments, _ formatName: String, _ source: CopySource, _ byteCount: UInt64,
    _ identities: IdentitySource
  ) throws(VerbFailure) -> ImageChain {
    let (format, options) = try plan(arguments, formatName, source, byteCount)
    return try attempt("\(arguments.target): error while converting \(formatName): ") {
      () throws(EngineError) in
      try ImageCreator.createInPipe(
        arguments.target, format: format, options: options, secrets: arguments.source.secrets,
        identities: identities)
    }
  }

  /// Makes the target, and says what it takes to open it: the names of the secrets that it was made with.
  private static func create(
    _ arguments: ConvertArguments, _ formatName: String, _ source: CopySource, _ byteCount: UInt64,
    _ identities: IdentitySource
  ) throws(VerbFailure) -> [String: String] {
    let (format, options) = try plan(arguments, formatName, source, byteCount)
    let warnings = try attempt("\(arguments.target): error while converting \(formatName): ") {
      () throws(EngineError) in
      try ImageCreator.refuse(arguments.target, whileReading: source.disks)
      return try ImageCreator.create(
        arguments.target, format: format, options: options, cache: arguments.cache.target,
        policy: arguments.source.policy, secrets: arguments.source.secrets,
        identities: identities, whileReading: source.disks)
    }
    warnings.forEach(Console.warning)
    return options.shown.filter { $0.name.hasSuffix("key-secret") }.reduce(into: [:]) {
      $0[$1.name] = $1.value
    }
  }

  private static func targetOptions(
    _ arguments: ConvertArguments, _ format: any CreatableFormat.Type, _ sourceCount: Int, _ byteCount: UInt64
  ) throws(VerbFailure) -> OptionValues {
    var options = OptionValues(ImageCreator.options(of: format))
    try attempt { () throws(EngineError) in
      try arguments.options.apply(to: &options)
      options.set("size", to: .number(byteCount))
      try CreateOptionsHelp.record(
        arguments.backing.file, arguments.backing.format, in: &options, of: format.name)
    }
    if let backing = ImageCreator.backing(in: options) {
      if sourceCount > 1 {
        throw VerbFailure(
          "Having a backing file for the target makes no sense when concatenating multiple input images")
      }
      if backing.format == nil { throw VerbFailure("Use of backing file requires explicit backing format") }
    }
    if arguments.compresses {
      let mode = options.text("preallocation") ?? "off"
      guard format.supportsCompression else {
        throw VerbFailure("Compression not supported for this file format")
      }
      if mode != "off" { throw VerbFailure("Compression and preallocation not supported at the same time") }
      if options.flag("encryption") == true || options.isGiven("encrypt.format") {
        throw VerbFailure("Compression and encryption not supported at the same time")
      }
    }
    return options
  }

  private static func copy(
    _ source: CopySource, to target: ImageChain, _ arguments: ConvertArguments, _ progress: Progress
  ) throws(VerbFailure) {
    var options = ConvertOptions()
    options.compress = arguments.compresses
    options.sparseByteCount = arguments.sparseByteCount
    options.copiesInHost = arguments.copiesInHost
    options.allowsAnyOrder = arguments.allowsAnyOrder
    options.sharesBlocks = arguments.createsTarget
    options.threadCount = min(arguments.threadCount, WorkerPool.processorCount())
    options.rateLimit = arguments.rateLimit
    if arguments.salvages {
      let isQuiet = arguments.isQuiet
      options.salvage = { warning in if !isQuiet { Console.warning(warning) } }
    }
    if arguments.isTargetZero && arguments.backing.file != nil {
      throw VerbFailure(
        "Cannot use --target-is-zero when the destination image has a backing file")
    }
    let hasBacking = arguments.createsTarget ? target.top.backing != nil : arguments.backing.file != nil
    options.scope = hasBacking ? .topLayer : .everything
    options.targetReadsAsZeros = arguments.createsTarget ? !target.hasOldBytes : arguments.isTargetZero
    options.fitsTarget = arguments.createsTarget && source.hasUnknownSize
    try attempt { () throws(EngineError) in try source.copy(to: target, options, progress) }
  }
}
