import CommandLine

/// The options that mean the same wherever they are taken. The help explains them once.
extension OptionRule {
  static let common: [OptionRule] = [
    .help, .allowPath, .object, .imageOptions, .format, .quiet, .progress, .forceShare, .cache, .sourceCache,
    .output,
    .backingFormat, .targetOptions, .targetFormat, .snapshot, .rateLimit,
  ]

  static let help = OptionRule("help", "h", help: "shows help and the formats that there are, and ends")
  static let object = OptionRule(
    "object", takes: .object, form: "--object objectdef",
    help: "defines a secret that other options name; may be repeated")
  /// Stands before the command's name or after it.
  static let allowPath = OptionRule(
    "allow-path", takes: ArgumentValue("folder", .file, "is a folder of the host"),
    help:
      "lets images name files in this folder and below it only; may be repeated. Files that the command line"
      + " names are not asked for")
  static let imageOptions = OptionRule(
    "image-opts",
    help: "takes file names for lists of options of the image and of what it lies in: 'driver=...,"
      + "file.filename=...'. It cannot stand beside -f")
  static let format = OptionRule("format", "f", takes: .format, help: "says which format the image has")
  static let forceShare = OptionRule(
    "force-share", "U",
    help: "reads an image that another program may be changing; what is read may not fit together")
  static let quiet = OptionRule("quiet", "q", help: "prints nothing but errors")
  static let progress = OptionRule("progress", "p", help: "shows how far the command has come")
  static let cache = OptionRule("cache", "t", takes: .cache, help: "says how the image is written")
  static let sourceCache = OptionRule("cache", "T", takes: .sourceCache, help: "says how the image is read")
  static let output = OptionRule(
    "output", takes: .outputStyle, help: "says how the result is printed: for people, or as JSON")
  static let backingFormat = OptionRule(
    "backing-format", "F", takes: .backingFormat, help: "says which format the backing file has")
  static let targetOptions = OptionRule(
    "target-format-options", "o", takes: .options, help: "sets options of the new image; may be repeated")
  static let targetFormat = OptionRule(
    "target-format", "O", takes: .outputFormat, help: "says which format the new image gets (raw)")
  static let rateLimit = OptionRule(
    "rate-limit", "r", takes: ArgumentValue("rate_limit"), help: "copies at most so many bytes a second")
  static let snapshot = OptionRule(
    "snapshot", "l", takes: .snapshotParameter, help: "takes an internal snapshot of the image in its place")
}

extension SyntaxPart {
  static let fileName = SyntaxPart.operand(OperandRule(.fileName))
}
