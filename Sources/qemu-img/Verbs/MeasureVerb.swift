import CommandLine
import FormatEngine

/// `measure`: how large a new image would be.
enum MeasureVerb {
  static let verb = Verb(
    "measure", "tells how large a new image would be",
    details: [
      "With --size it is an empty image, as create makes it; with a file name it is one with that disk's content,"
        + " as convert makes it."
    ],
    [
      .may(.output), .may(.targetFormat), .may(.targetOptions),
      .oneOf([
        .may(
          OptionRule(
            "size", takes: ArgumentValue("N"), form: "--size N",
            help: "is the size of a disk that is not there yet")),
        .together([
          .may(.object), .may(.imageOptions), .may(.format), .may(.snapshot), .may(.forceShare), .fileName,
        ]),
      ]),
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var list = OptionList()
    var formatName = "raw"
    var outputFormat = CommonArguments.OutputFormat.human
    var size: UInt64?
    var snapshot: SnapshotChoice?
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "target-format-options": try list.add(option.value)
      case "target-format": formatName = option.value
      case "snapshot": snapshot = try SnapshotChoice(option.value)
      case "output": outputFormat = try CommonArguments.outputFormat(option.value)
      case "size": size = try CommonArguments.size(option.value, what: "image size")
      default: try image.take(option)
      }
    }
    let names = parsed.operands
    if names.count > 1 { throw VerbFailure("At most one filename argument is allowed.") }
    if names.isEmpty && (image.usesImageOptions || image.format != nil || snapshot != nil) {
      throw VerbFailure("--image-opts, -f, and -l require a filename argument.")
    }
    guard size != nil || !names.isEmpty else {
      throw VerbFailure("Either --size N or one filename must be specified.")
    }
    if size != nil && !names.isEmpty {
      throw VerbFailure("--size N cannot be used together with a filename.")
    }
    var request = MeasureRequest(virtualSize: size ?? 0, options: OptionValues(OptionSchema([])))
    request.secrets = image.secrets
    if let name = names.first {
      let chain = try image.open(name)
      request.bitmaps = chain.top as? any BitmapKeeping
      let source = try snapshot?.open(in: chain) ?? chain
      (request.source, request.virtualSize) = (source, source.virtualSize)
    }
    let result = try measure(formatName, list, request)
    switch outputFormat {
    case .human: Console.write(text(result))
    case .json: Console.write(JSONText.pretty(json(result)) + "\n")
    }
    return 0
  }

  private static func measure(_ name: String, _ list: OptionList, _ request: MeasureRequest)
    throws(VerbFailure) -> Measurement
  {
    let format = try attempt { () throws(EngineError) in try ImageCreator.creatableFormat(name) }
    var request = request
    request.options = OptionValues(ImageCreator.options(of: format))
    do throws(EngineError) {
      try list.apply(to: &request.options)
    } catch {
      throw VerbFailure(error.text, "Invalid options for file format '\(name)'")
    }
    guard let measurable = format as? any Measurable.Type else {
      throw VerbFailure("Block driver '\(name)' does not support size measurement")
    }
    return try attempt { () throws(EngineError) in try measurable.measure(request) }
  }

  private static func text(_ result: Measurement) -> String {
    "required size: \(result.required)\nfully allocated size: \(result.fullyAllocated)\n"
      + (result.bitmaps.map { "bitmaps size: \($0)\n" } ?? "")
  }

  private static func json(_ result: Measurement) -> InfoValue {
    func field(_ key: String, _ count: UInt64) -> InfoField {
      InfoField(key, .integer(Int64(bitPattern: count)))
    }
    return .record(
      (result.bitmaps.map { [field("bitmaps", $0)] } ?? [])
        + [field("required", result.required), field("fully-allocated", result.fullyAllocated)])
  }
}
