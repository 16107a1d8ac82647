import CommandLine
import FormatEngine

/// How a command line says which image it means: `-f`, `--image-opts`, `--object`, `--allow-path` and `-U`, which
/// all commands have that open one.
struct ImageArguments {
  var format: String?
  /// Names are option strings (`driver=qcow2,file.filename=...`).
  private(set) var usesImageOptions = false
  private(set) var secrets = SecretStore()
  /// Empty: images may name any file.
  private var allowedFolders: [AllowedFolder] = []
  /// Who else may change the images: anybody with `-U`.
  private(set) var sharing = Sharing.asFormatAllows

  /// Takes an option that belongs here; others are wrong. A command asks its own first.
  mutating func take(_ option: GivenOption) throws(VerbFailure) {
    switch option.key {
    case "format", "source-format", "a-format": format = option.value
    case "image-opts": usesImageOptions = true
    case "object": try define(option.value)
    case OptionRule.allowPath.key:
      let folder = option.value
      allowedFolders.append(
        try attempt("--allow-path: ") { () throws(EngineError) in try AllowedFolder(folder) })
    case "force-share": sharing = .anybody
    default: throw option.failure
    }
  }

  private mutating func define(_ text: String) throws(VerbFailure) {
    if let help = ObjectArguments.help(for: text) {
      Console.write(help)
      throw VerbFailure([], exitStatus: 0)
    }
    do throws(EngineError) {
      try ObjectArguments.define(text, in: &secrets)
    } catch {
      throw VerbFailure(error)
    }
  }

  /// What images may name. Names that stand on the command line are not asked for.
  var policy: ReferencePolicy {
    allowedFolders.isEmpty ? .anywhere : ReferencePolicy(.folders(allowedFolders))
  }

  /// Opens what `name` means.
  func open(_ name: String, _ options: OpenOptions = OpenOptions(), exitStatus: CInt = 1)
    throws(VerbFailure) -> ImageChain
  {
    var options = options
    if sharing == .anybody { options.sharing = .anybody }
    return try open(name, options, format: format, isOptions: usesImageOptions, exitStatus: exitStatus)
  }

  /// The disk that comes out of `name` where that means a pipe, nil where it means anything else.
  func openStream(_ name: String) throws(VerbFailure) -> (any SequentialDisk)? {
    try attempt("Could not open '\(name)': ") { () throws(EngineError) in
      let image = try usesImageOptions ? ImageSpecification(options: name) : ImageSpecification(name: name)
      guard ImageOpener.isPipe(image), !(usesImageOptions && format != nil) else { return nil }
      var options = OpenOptions(format: format)
      options.policy = policy
      return try ImageOpener.openStream(image, options)
    }
  }

  /// Opens another image of the same command.
  func open(
    _ name: String, _ options: OpenOptions, format: String?, isOptions: Bool, isOwn: Bool = false,
    exitStatus: CInt = 1
  ) throws(VerbFailure) -> ImageChain {
    if isOptions && format != nil {
      throw VerbFailure("--image-opts and --format are mutually exclusive", exitStatus: exitStatus)
    }
    let specification = try attempt("Could not open '\(name)': ", exitStatus: exitStatus) {
      () throws(EngineError) in
      isOptions ? ImageSpecification(options: name) : try ImageSpecification(name: name)
    }
    if isOptions && options.sharing == .anybody && specification.refusesForcedSharing {
      throw VerbFailure("--force-share/-U conflicts with image options", exitStatus: exitStatus)
    }
    var options = try completed(options)
    options.format = format
    if isOwn { options.policy = policy.trusting((try? ImageName.plainPath(name)) ?? name) }
    let chain = try attempt("Could not open '\(name)': ", exitStatus: exitStatus) { () throws(EngineError) in
      try ImageOpener.open(specification, options)
    }
    if options.access == .readWrite, chain.members[0].isProbed, chain.members[0].formatName == "raw" {
      Self.warnOfGuess(chain.members[0].path)
    }
    return chain
  }

  /// With what holds for every image that the command opens.
  func completed(_ options: OpenOptions) throws(VerbFailure) -> OpenOptions {
    var options = options
    (options.secrets, options.policy, options.note) = (secrets, policy, Console.note)
    // Unless the command has said what they come from.
    if options.access == .readWrite, options.identities == nil {
      options.identities = try SourceDate.identities()
    }
    return options
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
