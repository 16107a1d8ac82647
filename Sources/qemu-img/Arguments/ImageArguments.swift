import FormatEngine

/// How a command line says which image it means: `-f`, `--image-opts`, `--object` and `-U`, which all
/// commands have that open one.
struct ImageArguments {
  var format: String?
  /// Names are option strings (`driver=qcow2,file.filename=...`).
  private(set) var usesImageOptions = false
  private(set) var secrets = SecretStore()

  /// Takes an option that belongs here; others are wrong. A command asks its own first.
  mutating func take(_ option: GivenOption) throws(VerbFailure) {
    switch option.key {
    case "format", "source-format", "a-format": format = option.value
    case "image-opts": usesImageOptions = true
    case "object": try ObjectArguments.define(option.value, in: &secrets)
    case "force-share": break  // Images are never locked here.
    default: throw option.failure
    }
  }

  /// Opens what `name` means.
  func open(_ name: String, _ options: OpenOptions = OpenOptions(), exitStatus: CInt = 1)
    throws(VerbFailure) -> ImageChain
  {
    try Self.open(
      name, options, format: format, isOptions: usesImageOptions, secrets, exitStatus: exitStatus)
  }

  /// The disk that comes out of `name` where that means a pipe, nil where it means anything else.
  func openStream(_ name: String) throws(VerbFailure) -> (any SequentialDisk)? {
    try attempt("Could not open '\(name)': ") { () throws(EngineError) in
      let image = try usesImageOptions ? ImageSpecification(options: name) : ImageSpecification(name: name)
      guard ImageOpener.isPipe(image), !(usesImageOptions && format != nil) else { return nil }
      return try ImageOpener.openStream(image, OpenOptions(format: format))
    }
  }

  static func open(
    _ name: String, _ options: OpenOptions, format: String?, isOptions: Bool, _ secrets: SecretStore,
    exitStatus: CInt = 1
  ) throws(VerbFailure) -> ImageChain {
    if isOptions && format != nil {
      throw VerbFailure("--image-opts and --format are mutually exclusive", exitStatus: exitStatus)
    }
    var options = options
    options.format = format
    options.secrets = secrets
    options.note = Console.note
    let chain = try attempt("Could not open '\(name)': ", exitStatus: exitStatus) { () throws(EngineError) in
      try ImageOpener.open(
        isOptions ? ImageSpecification(options: name) : ImageSpecification(name: name), options)
    }
    if options.access == .readWrite, format == nil, !isOptions, chain.members[0].formatName == "raw" {
      warnOfGuess(name)
    }
    return chain
  }

  /// A guest may have written what makes its raw disk look like another format, or like raw.
  private static func warnOfGuess(_ name: String) {
    Console.note("WARNING: Image format was not specified for '\(name)' and probing guessed raw.")
    Console.note(
      "         Automatically detecting the format is dangerous for raw images, write operations on block 0"
        + " will be restricted.")
    Console.note("         Specify the 'raw' format explicitly to remove the restrictions.")
  }
}
