import CommandLine
import FormatEngine

/// `bitmap`: changes the persistent dirty bitmaps of an image.
enum BitmapVerb {
  static let verb = Verb(
    "bitmap", "changes a persistent dirty bitmap of an image",
    details: [
      "The actions are done in the order in which they are given. info lists the bitmaps of an image."
    ],
    [
      .several([
        OptionRule(
          "merge", takes: ArgumentValue("source"), form: "--merge SOURCE",
          help: "adds what another bitmap has marked, of this image or of the one that -b names"),
        OptionRule("add", help: "makes the bitmap; it records changes from then on"),
        OptionRule("remove", help: "deletes the bitmap"),
        OptionRule("clear", help: "marks nothing in the bitmap any more"),
        OptionRule("enable", help: "lets the bitmap record changes"),
        OptionRule("disable", help: "stops the bitmap from recording"),
      ]),
      .pair(
        OptionRule(
          "source-file", "b", takes: ArgumentValue("source_file", .file),
          help: "names the image to --merge from"),
        OptionRule(
          "source-format", "F", takes: ArgumentValue("source_fmt", .format),
          help: "says which format that one has")),
      .may(
        OptionRule(
          "granularity", "g", takes: ArgumentValue("granularity"),
          help: "says for how many bytes one bit of the bitmap that --add makes stands")),
      .may(.object), .oneOf([.may(.imageOptions), .may(.format)]), .fileName,
      .operand(OperandRule(ArgumentValue("bitmap", .anything, "is the name of the bitmap"))),
    ], run: run)

  private enum Action {
    case add, remove, clear, enable, disable
    /// A bitmap, of the source file where there is one.
    case merge(String)

    /// As the option and the message have it.
    var name: String {
      switch self {
      case .add: "add"
      case .remove: "remove"
      case .clear: "clear"
      case .enable: "enable"
      case .disable: "disable"
      case .merge: "merge"
      }
    }

    init(_ option: GivenOption) {
      switch option.key {
      case "add": self = .add
      case "remove": self = .remove
      case "clear": self = .clear
      case "enable": self = .enable
      case "disable": self = .disable
      default: self = .merge(option.value)
      }
    }
  }

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var imageArguments = ImageArguments()
    var sourceFormat: String?
    var sourceFile: String?
    var granularity: UInt64?
    var actions: [Action] = []
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "source-file": sourceFile = option.value
      case "source-format": sourceFormat = option.value
      case "granularity": granularity = try CommonArguments.size(option.value, what: "granularity")
      case "add", "remove", "clear", "enable", "disable", "merge": actions.append(Action(option))
      default: try imageArguments.take(option)
      }
    }
    guard !actions.isEmpty else {
      throw VerbFailure("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
    }
    guard parsed.operands.count == 2 else { throw VerbFailure("Expecting filename and bitmap name") }
    if granularity != nil && !actions.contains(where: { $0.name == "add" }) {
      throw VerbFailure("granularity only supported with --add")
    }
    if sourceFormat != nil && sourceFile == nil { throw VerbFailure("-F only supported with -b") }
    if sourceFile != nil && !actions.contains(where: { $0.name == "merge" }) {
      throw VerbFailure("Merge bitmap source file only supported with --merge")
    }
    // A bitmap is its image's own, whatever lies below.
    var options = OpenOptions(access: .readWrite)
    options.backing = .ignore
    let image = try imageArguments.open(parsed.operands[0], options)
    options.access = .readOnly
    let source = try sourceFile.map { (name) throws(VerbFailure) in
      try imageArguments.open(name, options, format: sourceFormat, isOptions: false)
    }
    // What began is done as a whole; a signal in its middle waits for that.
    Interruption.endsWork()
    try change(
      image, source ?? image, bitmap: parsed.operands[1], actions, granularity: granularity ?? 0)
    return 0
  }

  /// Does one action after the other. Where one fails those before it are kept, as qemu-img does.
  private static func change(
    _ image: ImageChain, _ source: ImageChain, bitmap: String, _ actions: [Action], granularity: UInt64
  ) throws(VerbFailure) {
    var failure: VerbFailure?
    func perform(_ body: (Action) throws(EngineError) -> Void) {
      for action in actions where failure == nil {
        do throws(EngineError) {
          try body(action)
        } catch {
          failure = VerbFailure(error, prefix: "Operation \(action.name) on bitmap \(bitmap) failed: ")
        }
      }
    }
    guard let layer = image.top as? any BitmapChanging else {
      perform { (action) throws(EngineError) in throw refusal(of: image, action, bitmap) }
      if let failure { throw failure }
      return
    }
    try attempt("Could not change the bitmaps of '\(image.members[0].path)': ") { () throws(EngineError) in
      try image.changingWhole { () throws(EngineError) in
        try layer.changeBitmaps { (editor) throws(EngineError) in
          perform { (action) throws(EngineError) in
            try apply(action, to: &editor, bitmap, of: source === image ? nil : source, granularity)
          }
        }
      }
      try image.close()
    }
    if let failure { throw failure }
  }

  private static func apply(
    _ action: Action, to editor: inout BitmapEditor, _ bitmap: String, of source: ImageChain?,
    _ granularity: UInt64
  ) throws(EngineError) {
    switch action {
    case .add: try editor.add(bitmap, granularity: granularity)
    case .remove: try editor.remove(bitmap)
    case .clear: try editor.clear(bitmap)
    case .enable: try editor.setEnabled(bitmap, to: true)
    case .disable: try editor.setEnabled(bitmap, to: false)
    case .merge(let name):
      guard let source else { return try editor.merge(name, into: bitmap) }
      try editor.merge(name, of: source.top, into: bitmap)
    }
  }

  /// What an image says that has no notion of bitmaps.
  private static func refusal(of image: ImageChain, _ action: Action, _ bitmap: String) -> EngineError {
    action.name == "add"
      ? .unsupported("Can't store persistent bitmaps to '\(image.members[0].path)': Operation not supported")
      : EngineError(.notFound, "Dirty bitmap '\(bitmap)' not found")
  }
}
