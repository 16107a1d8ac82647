import CommandLine
import FormatEngine

/// The command line of `convert`, read and checked as far as that goes without opening an image.
struct ConvertArguments {
  var sources: [String] = []
  var target = ""
  var source = ImageArguments()
  /// Nil where none is given: raw, unless the target is given by options.
  var targetFormat: String?
  /// Set by `--target-image-opts`: the target is an option string.
  var usesTargetOptions = false
  var options = OptionList()
  var backing: (file: String?, format: String?)
  var snapshot: SnapshotChoice?
  var (compresses, createsTarget, showsProgress, isQuiet) = (false, true, false, false)
  var (copiesBitmaps, skipsBrokenBitmaps) = (false, false)
  /// Set by `--target-is-zero`.
  var isTargetZero = false
  var sparseByteCount: UInt64 = 4096
  /// Bytes a second; nil: as fast as can be.
  var rateLimit: UInt64?
  /// The host copies where it can, and then zeros are not looked for.
  var copiesInHost = false
  /// What cannot be read becomes zeros.
  var salvages = false
  var threadCount = 8
  var allowsAnyOrder = false
  var cache: (source: CacheMode, target: CacheMode) = (.writeback, .unflushed)

  /// What the target's name means; nil where it means nothing.
  var targetSpecification: ImageSpecification? {
    usesTargetOptions ? ImageSpecification(options: target) : try? ImageSpecification(name: target)
  }

  enum Request {
    case convert(ConvertArguments)
    case help
    case optionsHelp(format: String, hasFileName: Bool)
  }

  static func read(_ arguments: [String]) throws(VerbFailure) -> Request {
    let parsed = OptionParser.parse(arguments, ConvertVerb.verb.options)
    var result = ConvertArguments()
    var hasSparse = false
    var caches = (target: "unsafe", source: "writeback")
    for option in parsed.options {
      switch option.key {
      case "help": return .help
      case "sparse-size":
        result.sparseByteCount = try sparseSize(option.value)
        hasSparse = true
      case "copy-range-offloading": result.copiesInHost = true
      case "target-cache": caches.target = option.value
      case "source-cache": caches.source = option.value
      case "parallel": result.threadCount = try coroutineCount(option.value)
      case "oob-writes": result.allowsAnyOrder = true
      default: try result.take(option)
      }
    }
    if result.copiesInHost && result.compresses {
      throw VerbFailure("Cannot enable copy offloading when -c is used")
    }
    if result.copiesInHost && hasSparse {
      throw VerbFailure("Cannot enable copy offloading when -S is used")
    }
    if result.copiesInHost && result.salvages {
      throw VerbFailure("Cannot use copy offloading in salvaging mode")
    }
    if !result.createsTarget && !result.options.isEmpty {
      throw VerbFailure("-o has no effect when skipping image creation")
    }
    if result.skipsBrokenBitmaps && !result.copiesBitmaps {
      throw VerbFailure("Use of --skip-broken-bitmaps requires --bitmaps")
    }
    if result.isTargetZero && result.createsTarget {
      throw VerbFailure("--target-is-zero requires use of -n flag")
    }
    if result.usesTargetOptions && result.createsTarget {
      throw VerbFailure("--target-image-opts requires use of -n flag")
    }
    if result.options.asksForHelp {
      return .optionsHelp(format: result.targetFormat ?? "raw", hasFileName: parsed.operands.count > 1)
    }
    guard parsed.operands.count > 1 else { throw VerbFailure("Must specify image file name") }
    result.sources = Array(parsed.operands.dropLast())
    result.target = parsed.operands[parsed.operands.count - 1]
    result.cache.source = try CommonArguments.cacheMode(caches.source, what: "source cache")
    result.cache.target = try CommonArguments.cacheMode(caches.target, what: "cache")
    return .convert(result)
  }

  private mutating func take(_ option: GivenOption) throws(VerbFailure) {
    switch option.key {
    case "target-format": targetFormat = option.value
    case "backing": backing.file = option.value
    case "backing-format": backing.format = option.value
    case "target-format-options": try options.add(option.value)
    case "snapshot": snapshot = try SnapshotChoice(option.value)
    case "compress": compresses = true
    case "no-create": createsTarget = false
    case "progress": showsProgress = true
    case "quiet": isQuiet = true
    case "target-is-zero": isTargetZero = true
    case "bitmaps": copiesBitmaps = true
    case "skip-broken-bitmaps": skipsBrokenBitmaps = true
    case "rate-limit": rateLimit = try CommonArguments.rateLimit(option.value)
    case "salvage": salvages = true
    case "target-image-opts": usesTargetOptions = true
    default: try source.take(option)
    }
  }

  private static func sparseSize(_ text: String) throws(VerbFailure) -> UInt64 {
    let what = "buffer size for sparse output"
    let size = try CommonArguments.size(text, what: what)
    guard size.isAligned(to: 512), size <= 16 * MiB else {
      throw VerbFailure(
        "Invalid \(what) specified. Valid sizes are multiples of 512 up to 16777216."
          + " Select 0 to disable sparse detection (fully allocates output).")
    }
    return size
  }

  private static func coroutineCount(_ text: String) throws(VerbFailure) -> Int {
    // A negative number is one here, and none between 1 and 16.
    guard let count = SizeText.parseInteger(text), !text.contains("-"), (1...16).contains(count) else {
      throw VerbFailure("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16")
    }
    return Int(count)
  }
}
