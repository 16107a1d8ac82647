import CommandLine
import FormatEngine

/// `compare`: whether guests read the same of two images.
enum CompareVerb {
  static let verb = Verb(
    "compare", "looks whether guests read the same of two images",
    details: [
      "Where one image is longer, the rest of it has to read as zeros.",
      "The exit status is 0 if the images are alike, 1 if they differ, 2 if one could not be opened, 3 if it could"
        + " not be found out what is allocated, 4 if one could not be read.",
    ],
    [
      .may(.object), .may(.imageOptions),
      .may(OptionRule("a-format", "f", takes: .format, help: "says which format the first image has")),
      .may(OptionRule("b-format", "F", takes: .format, help: "says which format the second image has")),
      .may(.sourceCache),
      .may(.progress), .may(.quiet),
      .may(OptionRule("strict", "s", help: "also compares the sizes, and what is allocated")),
      .may(.forceShare),
      .operand(OperandRule(.fileName, form: "filename1")),
      .operand(OperandRule(.fileName, form: "filename2")),
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var images = ImageArguments()
    var secondFormat: String?
    var cache = "writeback"
    var (showsProgress, isQuiet, isStrict) = (false, false, false)
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "b-format": secondFormat = option.value
      case "cache": cache = option.value
      case "progress": showsProgress = true
      case "quiet": isQuiet = true
      case "strict": isStrict = true
      case "object", OptionRule.allowPath.key:
        do throws(VerbFailure) { try images.take(option) } catch {
          // 1 would say that the images differ; 0 that help was asked for.
          throw VerbFailure(error.messages, exitStatus: error.exitStatus == 0 ? 0 : 2)
        }
      default: try images.take(option)
      }
    }
    guard parsed.operands.count == 2 else { throw .usage("Expecting two image file names") }
    var options = OpenOptions()
    options.cache = try CommonArguments.cacheMode(cache, what: "source cache", exitStatus: 2)
    let line = ProgressLine(isShown: showsProgress && !isQuiet, step: 2)
    defer { line.end() }
    let a = try images.open(parsed.operands[0], options, exitStatus: 2)
    images.format = secondFormat
    let b = try images.open(parsed.operands[1], options, exitStatus: 2)
    line.show(0)
    return try compare(a, b, isStrict: isStrict, line) { if !isQuiet { Console.write($0 + "\n") } }
  }

  private static func compare(
    _ a: ImageChain, _ b: ImageChain, isStrict: Bool, _ line: ProgressLine, say: (String) -> Void
  ) throws(VerbFailure) -> CInt {
    let (shorter, longer) = (min(a.virtualSize, b.virtualSize), max(a.virtualSize, b.virtualSize))
    if isStrict && shorter != longer {
      say("Strict mode: Image size mismatch!")
      return 1
    }
    let share = longer == 0 ? 100 : Double(shorter) / Double(longer) * 100
    var difference = try first(between: a, b, 0..<shorter, isStrict, line.progress(share: share))
    if difference == nil && shorter != longer {
      say("Warning: Image size mismatch!")
      let rest = line.progress(from: share, share: 100 - share)
      difference = try first(between: a, b, shorter..<longer, false, rest)
    }
    switch difference {
    case .content(let offset)?: say("Content mismatch at offset \(offset)!")
    case .status(let offset)?: say("Strict mode: Offset \(offset) block status mismatch!")
    case nil: say("Images are identical.")
    }
    return difference == nil ? 0 : 1
  }

  private static func first(
    between a: ImageChain, _ b: ImageChain, _ range: Range<UInt64>, _ isStrict: Bool, _ progress: Progress
  ) throws(VerbFailure) -> Difference? {
    do throws(EngineError) {
      return try Comparer.firstDifference(
        between: a, and: b, in: range, comparingStatus: isStrict, progress: progress)
    } catch {
      let file = error.path ?? a.members[0].name
      if error.message.hasPrefix(Comparer.statusFailure) {
        throw VerbFailure("\(Comparer.statusFailure) for \(file)", exitStatus: 3)
      }
      throw VerbFailure(
        "Error while reading offset \(error.offset ?? 0) of \(file): \(error.text)", exitStatus: 4)
    }
  }
}
