import CommandLine
import FormatEngine

/// `dd`: copies a part of a disk into a new image.
enum DdVerb {
  static let verb = Verb(
    "dd", "copies a part of a disk into a new image",
    details: ["Input and output may be pipes, as those of convert may be."],
    [
      .may(.object), .may(.imageOptions), .may(.forceShare),
      .may(OptionRule("format", "f", takes: .format, help: "says which format the input has")),
      .may(
        OptionRule(
          "output-format", "O", takes: .outputFormat, help: "says which format the output gets (raw)")),
      .operand(
        OperandRule(
          ArgumentValue("block_size"), prefix: "bs=", form: "[bs=block_size]",
          "is how many bytes a block has (512)")),
      .operand(
        OperandRule(
          ArgumentValue("blocks"), prefix: "count=", form: "[count=blocks]",
          "is how many blocks are looked at from the start of the input")),
      .operand(
        OperandRule(
          ArgumentValue("blocks"), prefix: "skip=", form: "[skip=blocks]",
          "is how many of those are passed over")),
      .operand(OperandRule(ArgumentValue("input", .file), prefix: "if=", "is the image to read")),
      .operand(OperandRule(ArgumentValue("output", .file), prefix: "of=", "is the image to write")),
    ], run: run)

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
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var formatName = "raw"
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "output-format": formatName = option.value
      default: try image.take(option)
      }
    }
    var operands = Operands()
    for operand in parsed.operands { try operands.take(operand) }
    guard let input = operands.input, let output = operands.output else {
      throw VerbFailure("Must specify both input and output files")
    }
    let source = try CopySource.open([input], image)
    // Of a pipe that nobody knows the end of, the part has its own end, too.
    var byteCount = UInt64.max
    if !source.hasUnknownSize { byteCount = try source.byteCount() }
    let part = operands.part(of: byteCount)
    if part == nil { Console.error("\(input): cannot skip to specified offset") }
    let target = try create(output, formatName, part ?? 0..<0, source, image)
    if let part {
      var options = ConvertOptions()
      options.failureWords = .given(
        reading: "error while reading from input image file",
        writing: "error while writing to output image file")
      options.part = part
      options.fitsTarget = source.hasUnknownSize
      options.sharesBlocks = true
      options.targetReadsAsZeros = !target.hasOldBytes
      try Interruption.closing(target) { () throws(VerbFailure) in
        try attempt { () throws(EngineError) in
          try source.copy(to: target, options, ProgressLine(isShown: false, step: 1).progress())
        }
      }
    }
    try attempt("Could not flush '\(output)': ") { () throws(EngineError) in try target.close() }
    return 0
  }

  private static func create(
    _ name: String, _ formatName: String, _ part: Range<UInt64>, _ source: CopySource,
    _ image: ImageArguments
  ) throws(VerbFailure) -> ImageChain {
    let format = try attempt { () throws(EngineError) in
      guard FormatCatalog.format(named: formatName) != nil else { throw .invalid("Unknown file format") }
      let format = try ImageCreator.creatableFormat(formatName)
      _ = try ImageName.plainPath(name)
      return format
    }
    try source.requireRoom(in: format, preallocation: nil)
    let words = "\(name): error while creating output image: "
    let partByteCount = part.upperBound - part.lowerBound
    var options = OptionValues(ImageCreator.options(of: format))
    options.set("size", to: .number(source.hasUnknownSize ? min(512, partByteCount) : partByteCount))
    var opening = OpenOptions(access: .readWrite)
    let identities =
      format.recordsIdentity ? try source.identities(of: part) : try SourceDate.identities()
    opening.identities = identities
    if ImageCreator.isPipe(name) {
      return try attempt(words) { () throws(EngineError) in
        try ImageCreator.createInPipe(name, format: format, options: options, identities: identities)
      }
    }
    try attempt(words) { () throws(EngineError) in
      try ImageCreator.refuse(name, whileReading: source.disks)
      _ = try ImageCreator.create(
        name, format: format, options: options, policy: image.policy, identities: identities,
        whileReading: source.disks)
    }
    return try image.open(name, opening, format: formatName, isOptions: false, isOwn: true)
  }
}
