import CommandLine
import FormatEngine

/// `resize`: gives a disk another size.
enum ResizeVerb {
  static let verb = Verb(
    "resize", "gives a disk another size",
    details: [
      "With + or - before it, the size is added to what the disk has, or taken off. Before a disk is made smaller,"
        + " the file systems and partitions on it must be; after it was made larger they can grow."
    ],
    [
      .may(.object), .may(.imageOptions), .may(.format),
      .may(
        OptionRule(
          "preallocation", takes: .preallocation, help: "says how room for what is added is set aside")),
      .may(.quiet),
      .may(OptionRule("shrink", help: "allows to cut off the end of the disk, and the data there")),
      .fileName,
      .operand(OperandRule(.size, form: "[+ | -]size")),
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    // The size comes last and may begin with a hyphen, so it is no option; a word alone is no size.
    if arguments.count == 2, ["-h", "--help"].contains(arguments[1]) { return verb.showHelp() }
    guard arguments.count >= 3, let sizeText = arguments.last else { throw .usage("Not enough arguments") }
    let parsed = OptionParser.parse(Array(arguments.dropLast()), verb.options)
    var image = ImageArguments()
    var preallocation = Preallocation.off
    var (isQuiet, mayShrink) = (false, false)
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "quiet": isQuiet = true
      case "shrink": mayShrink = true
      case "preallocation":
        guard let mode = Preallocation(rawValue: option.value) else {
          throw VerbFailure("Invalid preallocation mode '\(option.value)'")
        }
        preallocation = mode
      default: try image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting image file name and size") }
    let change = try SizeChange(sizeText)
    var options = OpenOptions(access: .readWrite)
    options.changesSize = true
    let chain = try image.open(parsed.operands[0], options)
    let size = try newSize(change, of: chain, preallocation, mayShrink: mayShrink)
    let line = ProgressLine(isShown: false, step: 1)
    Interruption.endsWork()
    try Interruption.closing(chain) { () throws(VerbFailure) in
      try attempt { () throws(EngineError) in
        try chain.resize(to: size, preallocation: preallocation, progress: line.progress())
      }
    }
    try attempt { () throws(EngineError) in try chain.close() }
    if !isQuiet { Console.write("Image resized.\n") }
    return 0
  }

  private static func newSize(
    _ change: SizeChange, of chain: ImageChain, _ preallocation: Preallocation, mayShrink: Bool
  ) throws(VerbFailure) -> UInt64 {
    guard let size = change.applied(to: chain.virtualSize) else {
      throw VerbFailure("New image size must be positive")
    }
    if size <= chain.virtualSize && preallocation != .off {
      throw VerbFailure("Preallocation can only be used for growing images")
    }
    if size < chain.virtualSize && !mayShrink {
      throw VerbFailure(
        "Use the --shrink option to perform a shrink operation.",
        "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such"
          + " an operation, make sure there is no important data there.")
    }
    return size
  }
}

/// A new size as it is written: `10G`, or `+1G` and `-1G` from what it was.
struct SizeChange {
  private enum Direction { case absolute, up, down }

  private let direction: Direction
  private let byteCount: UInt64

  init(_ text: String) throws(VerbFailure) {
    direction = text.hasPrefix("+") ? .up : text.hasPrefix("-") ? .down : .absolute
    do throws(SizeText.Failure) {
      byteCount = try SizeText.parse(direction == .absolute ? text : String(text.dropFirst()))
    } catch {
      throw Self.failure(error, text: direction == .absolute ? text : String(text.dropFirst()))
    }
  }

  private static func failure(_ error: SizeText.Failure, text: String) -> VerbFailure {
    switch error {
    case .outOfRange: VerbFailure("Value '\(text)' is out of range for parameter 'size'")
    case .notASize:
      VerbFailure(
        "Parameter 'size' expects a non-negative number below 2^64\n"
          + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
          + "and exabytes, respectively.")
    }
  }

  /// Nil where nothing would be left, or more than a file can be long.
  func applied(to old: UInt64) -> UInt64? {
    let (size, overflow) =
      switch direction {
      case .absolute: (byteCount, false)
      case .up: old.addingReportingOverflow(byteCount)
      case .down: old.subtractingReportingOverflow(byteCount)
      }
    return overflow || size == 0 || size > UInt64(Int64.max) ? nil : size
  }
}
