import FormatEngine

/// `dd`: copies a part of a disk into a new image.
enum DdVerb {
  static let usage =
    "[--object objectdef] [--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks]"
    + " [skip=blocks] if=input of=output"

  private static let rules =
    [
      OptionRule("help", "h"), OptionRule(letter: "f", takesValue: true),
      OptionRule(letter: "O", takesValue: true),
    ] + ImageArguments.sharingRules

  /// The words `name=value` of the command line.
  private struct Operands {
    var (input, output): (String?, String?)
    var blockSize: UInt64 = 512
    var (count, skip): (UInt64?, UInt64) = (nil, 0)

    mutating func take(_ text: String) throws(VerbFailure) {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard parts.count > 1 else { throw VerbFailure("unrecognized operand \(text)") }
      switch parts[0] {
      case "if": input = parts[1]
      case "of": output = parts[1]
      case "bs":
        blockSize = try CommonArguments.size(parts[1], what: "bs", in: 1...UInt64(CInt.max))
      case "count": count = try CommonArguments.size(parts[1], what: "count")
      case "skip": skip = try CommonArguments.size(parts[1], what: "skip")
      default: throw VerbFailure("unrecognized operand \(parts[0])")
      }
    }

    /// Guest bytes of a disk of this size that are copied; nil where all of them are skipped.
    ///
    /// As qemu-img has it, `count` counts the skipped blocks, too.
    func part(of byteCount: UInt64) -> Range<UInt64>? {
      let end = count.flatMap { multiplied($0) }.map { min($0, byteCount) } ?? byteCount
      guard let start = multiplied(skip), start <= end else { return nil }
      return start..<end
    }

    private func multiplied(_ blocks: UInt64) -> UInt64? {
      let (product, overflow) = blocks.multipliedReportingOverflow(by: blockSize)
      return overflow ? nil : product
    }
  }

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, rules)
    var image = ImageArguments()
    var formatName = "raw"
    for option in parsed.options {
      switch option.key {
      case "help": return Main.showHelp()
      case "O": formatName = option.value
      default: try image.take(option)
      }
    }
    var operands = Operands()
    for operand in parsed.operands { try operands.take(operand) }
    guard let input = operands.input, let output = operands.output else {
      throw VerbFailure("Must specify both input and output files")
    }
    var opening = OpenOptions()
    opening.flushing = .never
    let source = try image.open(input, opening)
    let part = operands.part(of: source.virtualSize)
    if part == nil { Console.error("\(input): cannot skip to specified offset") }
    let target = try create(
      output, formatName, byteCount: part.map { $0.upperBound - $0.lowerBound } ?? 0, source, image)
    if let part {
      try attempt { () throws(EngineError) in
        var options = ConvertOptions()
        options.part = part
        try Converter.convert(from: [source], to: target, options)
      }
    }
    try attempt("Could not flush '\(output)': ") { () throws(EngineError) in try target.close() }
    return 0
  }

  private static func create(
    _ name: String, _ formatName: String, byteCount: UInt64, _ source: ImageChain,
    _ image: ImageArguments
  ) throws(VerbFailure) -> ImageChain {
    let format = try attempt { () throws(EngineError) in
      let format = try ImageCreator.creatableFormat(formatName)
      _ = try ImageName.plainPath(name)
      return format
    }
    try attempt("\(name): error while creating output image: ") { () throws(EngineError) in
      try ImageCreator.refuse(name, whileReading: [source])
      var options = OptionValues(ImageCreator.options(of: format))
      options.set("size", to: .number(byteCount))
      _ = try ImageCreator.create(
        name, format: format, options: options, flushing: .never, policy: image.policy, whileReading: [source]
      )
    }
    var opening = OpenOptions(access: .readWrite)
    opening.flushing = .never
    return try image.open(name, opening, format: formatName, isOptions: false, isOwn: true)
  }
}
