import CommandLine
import FormatEngine

/// `create`: a new, empty image.
enum CreateVerb {
  static let verb = Verb(
    "create", "makes a new image",
    details: [
      "An image over a backing file records what differs from that one, and needs no size of its own. A relative"
        + " name of a backing file counts from the folder of the new image."
    ],
    [
      .may(.object), .may(.quiet),
      .may(
        OptionRule(
          "format", "f", takes: ArgumentValue("fmt", .writableFormat),
          help: "says which format the image gets (raw)")),
      .pair(
        OptionRule("backing", "b", takes: .backingFile, help: "names the image to lie over"), .backingFormat),
      .may(
        OptionRule(
          "backing-unsafe", "u", help: "records the backing file without looking at it; then a size is needed"
        )),
      .may(OptionRule("options", "o", takes: .options, help: "sets options of the image; may be repeated")),
      .fileName,
      .operand(OperandRule(.size, form: "[size]")),
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var format = "raw"
    var backing: (file: String?, format: String?)
    var list = OptionList()
    var (isQuiet, opensBacking) = (false, true)
    var image = ImageArguments()
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "format": format = option.value
      case "backing-format": backing.format = option.value
      case "backing": backing.file = option.value
      case "options": try list.add(option.value)
      case "quiet": isQuiet = true
      case "backing-unsafe": opensBacking = false
      default: try image.take(option)
      }
    }
    let operands = parsed.operands
    if list.asksForHelp { return try CreateOptionsHelp.show(format: format, hasFileName: !operands.isEmpty) }
    guard let name = operands.first else { throw .usage("Expecting image file name") }
    let sizeText = operands.dropFirst().first
    let size = try sizeText.map { (text) throws(VerbFailure) in
      try CommonArguments.size(text, what: "image size")
    }
    if operands.count > 2 { throw .usage("Unexpected argument: \(operands[2])") }
    let (policy, secrets) = (image.policy, image.secrets)
    let identities = try SourceDate.identities()
    try attempt("\(name): ") { () throws(EngineError) in
      let target = try ImageCreator.creatableFormat(format)
      _ = try ImageName.plainPath(name)
      var options = OptionValues(ImageCreator.options(of: target))
      try list.apply(to: &options)
      if let size {
        guard !options.isGiven("size") else { throw .invalid("The image size must be specified only once") }
        options.set("size", to: .number(size))
      }
      try CreateOptionsHelp.record(backing.file, backing.format, in: &options, of: format)
      try ImageCreator.resolve(&options, for: name, policy: policy, opening: opensBacking, secrets)
      if !isQuiet {
        Console.write("Formatting '\(name)', fmt=\(format)\(CreateOptionsHelp.shown(options))\n")
        Console.flush()
      }
      let warnings = try ImageCreator.create(
        name, format: target, options: options, policy: policy, secrets: secrets,
        identities: identities)
      warnings.forEach(Console.warning)
    }
    return 0
  }
}

/// What `create` and `convert` do with the options of a new image.
enum CreateOptionsHelp {
  /// Puts `-b` and `-F` among the options.
  static func record(
    _ file: String?, _ backingFormat: String?, in options: inout OptionValues, of format: String
  ) throws(EngineError) {
    if let file {
      guard options.schema.option(named: "backing_file") != nil else {
        throw .unsupported("Backing file not supported for file format '\(format)'")
      }
      options.set("backing_file", to: .text(file))
    }
    if let backingFormat {
      guard options.schema.option(named: "backing_fmt") != nil else {
        throw .unsupported("Backing file format not supported for file format '\(format)'")
      }
      options.set("backing_fmt", to: .text(backingFormat))
    }
  }

  /// The options as `create` prints them, commas doubled.
  static func shown(_ options: OptionValues) -> String {
    options.shown.map { option in
      " \(option.name)="
        + option.value.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
    }.joined()
  }

  /// `-o help`. A file name adds the options of the file that the image lies in.
  static func show(format: String, hasFileName: Bool) throws(VerbFailure) -> CInt {
    let target = try attempt { () throws(EngineError) in try ImageCreator.creatableFormat(format) }
    if hasFileName {
      Console.write("Supported options:\n" + list(ImageCreator.options(of: target)))
    } else {
      Console.write(
        "Supported \(format) options:\n" + list(ImageCreator.formatOptions(of: target))
          + "\nThe protocol level may support further options.\n"
          + "Specify the target filename to include those options.\n")
    }
    return 0
  }

  /// One line for each option.
  static func list(_ schema: OptionSchema) -> String {
    schema.options.filter { !$0.isUnlisted }.sorted { $0.name < $1.name }.map { option in
      let kind =
        switch option.kind {
        case .text: "str"
        case .size: "size"
        case .number: "num"
        case .flag: "bool (on/off)"
        }
      return "  " + NumberText.left("\(option.name)=<\(kind)>", 22) + " - \(option.help)\n"
    }.joined()
  }
}
