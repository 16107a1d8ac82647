import CommandLine
import FormatEngine

/// What a command line asks for.
enum Invocation: Equatable {
  case help
  case version
  /// Help of `--object`, as qemu-img has it.
  case text(String)
  /// For those who install imgfs: the manual page, or completions of a shell.
  case generate(String)
  case unmount(String)
  case commit(String)
  case mount(MountOptions)

  /// What imgfs does instead of mounting.
  static let actions = [
    OptionRule("unmount", "u", help: "take the tree away; returns when its process has ended"),
    OptionRule("commit", help: "fold the overlay of the tree into the image"),
    OptionRule("help", "h", help: "print this text"),
    OptionRule("version", "V", help: "print the version"),
  ]
  static let mountOptionList = OptionRule(
    "options", "o", takes: ArgumentValue("LIST"), help: "mount options, separated by commas")
  static let generator = OptionRule(
    "generate", takes: ArgumentValue("KIND", .words(["man", "bash", "zsh", "fish"])),
    help: "print the manual page, or what a shell needs to complete command lines")

  /// Understands a command line, without the program's name.
  static func parse(_ arguments: [String]) throws(UsageError) -> Invocation {
    let settings = SettingTable.all.compactMap { setting in setting.option.map { ($0, setting) } }
    let parsed = OptionParser.parse(
      ["imgfs"] + arguments, settings.map(\.0) + [mountOptionList] + actions + [generator])
    var options = MountOptions()
    var actions: [Invocation] = []
    for option in parsed.options {
      switch option.key {
      case "help": actions.append(.help)
      case "version": actions.append(.version)
      case "generate": actions.append(.generate(option.value))
      case "unmount": actions.append(.unmount(""))
      case "commit": actions.append(.commit(""))
      case mountOptionList.key: try MountOptionList.apply(option.value, to: &options)
      case let key:
        guard let setting = settings.first(where: { $0.0.key == key })?.1 else {
          throw UsageError(option.unknownLetter.map { "unrecognized option '-\($0)'" } ?? option.complaint)
        }
        try setting.apply(&options, .init(spelling: "--\(key)", value: option.value))
      }
    }
    return try invocation(actions, options, parsed.operands)
  }

  private static func invocation(_ actions: [Invocation], _ options: MountOptions, _ operands: [String])
    throws(UsageError) -> Invocation
  {
    for action in actions {
      switch action {
      case .unmount, .commit: continue
      default: return action
      }
    }
    if let help = options.objects.compactMap({ ObjectArguments.help(for: $0) }).first { return .text(help) }
    guard let action = actions.first else { return .mount(try mount(options, operands)) }
    guard Set(actions.map { $0 == .unmount("") }).count == 1 else {
      throw UsageError("--unmount and --commit are mutually exclusive")
    }
    let isUnmount = action == .unmount("")
    guard operands.count == 1 else {
      throw UsageError("\(isUnmount ? "--unmount" : "--commit") takes one mount point")
    }
    return isUnmount ? .unmount(operands[0]) : .commit(operands[0])
  }

  /// The last operand is the mount point.
  private static func mount(_ given: MountOptions, _ operands: [String]) throws(UsageError) -> MountOptions {
    guard let mountPoint = operands.last, operands.count > 1 else {
      throw UsageError("Expecting an image and a mount point")
    }
    var options = given
    options.images = Array(operands.dropLast())
    options.mountPoint = mountPoint
    if let conflict = options.conflict { throw UsageError(conflict) }
    return options
  }
}
