import FormatEngine

/// `compare`: whether guests read the same of two images.
enum CompareVerb {
  static let usage =
    "[--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2"

  private static let rules =
    [
      OptionRule("help", "h"), OptionRule(letter: "f", takesValue: true),
      OptionRule(letter: "F", takesValue: true),
      OptionRule(letter: "T", takesValue: true), OptionRule(letter: "p"), OptionRule(letter: "q"),
      OptionRule(letter: "s"),
    ] + ImageArguments.sharingRules

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, rules)
    var images = ImageArguments()
    var secondFormat: String?
    var cache = "writeback"
    var (showsProgress, isQuiet, isStrict) = (false, false, false)
    for option in parsed.options {
      switch option.key {
      case "help": return Main.showHelp()
      case "F": secondFormat = option.value
      case "T": cache = option.value
      case "p": showsProgress = true
      case "q": isQuiet = true
      case "s": isStrict = true
      default: try images.take(option)
      }
    }
    guard parsed.operands.count == 2 else { throw .usage("Expecting two image file names") }
    _ = try CommonArguments.cacheMode(cache, what: "source cache", exitStatus: 2)
    let line = ProgressLine(isShown: showsProgress && !isQuiet, step: 2)
    defer { line.end() }
    let a = try images.open(parsed.operands[0], exitStatus: 2)
    images.format = secondFormat
    let b = try images.open(parsed.operands[1], exitStatus: 2)
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
        "Error while reading offset \(error.offset ?? 0) of \(file): \(error.message)", exitStatus: 4)
    }
  }
}
