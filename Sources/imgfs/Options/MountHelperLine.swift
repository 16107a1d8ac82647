import CommandLine

/// The command line of a helper of mount(8), which calls `mount.imgfs SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE]
/// [-o LIST]`. Its letters are others than those of imgfs.
enum MountHelperLine {
  private static let rules = [
    OptionRule("sloppy", "s", help: ""), OptionRule("fake", "f", help: ""),
    OptionRule("no-mtab", "n", help: ""), OptionRule("verbose", "v", help: ""),
    OptionRule("namespace", "N", takes: ArgumentValue("NAMESPACE"), help: ""),
    OptionRule("types", "t", takes: ArgumentValue("TYPE"), help: ""), Invocation.mountOptionList,
  ]
  /// mount(8): wrong use, and a mount that failed.
  static let (usageStatus, failureStatus): (CInt, CInt) = (1, 32)

  /// Whether a program that is called so is to be a helper.
  static func isName(_ path: String) -> Bool {
    let name = path.split(separator: "/").last ?? ""
    return name == "mount.imgfs" || name == "mount.fuse.imgfs"
  }

  /// Understands a command line, without the program's name.
  static func parse(_ arguments: [String]) throws(UsageError) -> MountOptions {
    let parsed = OptionParser.parse(["mount.imgfs"] + arguments, rules)
    var options = MountOptions()
    let isSloppy = parsed.options.contains { $0.key == "sloppy" }
    for option in parsed.options {
      switch option.key {
      case "fake": options.isRehearsal = true
      case "namespace": options.namespace = option.value
      case Invocation.mountOptionList.key:
        try MountOptionList.apply(option.value, to: &options, isSloppy: isSloppy)
      // The table of mounts is the kernel's, the type is what it was called by, and there is nothing more to tell.
      case "sloppy", "no-mtab", "verbose", "types": break
      default:
        throw UsageError(option.unknownLetter.map { "unrecognized option '-\($0)'" } ?? option.complaint)
      }
    }
    guard parsed.operands.count == 2 else { throw UsageError("Expecting an image and a mount point") }
    options.images = [parsed.operands[0]]
    options.mountPoint = parsed.operands[1]
    if let conflict = options.conflict { throw UsageError(conflict) }
    return options
  }
}
