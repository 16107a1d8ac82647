import CommandLine
import FormatEngine
import Glibc

@main enum Main {
  static func main() {
    // Whoever reads standard output may go away: that is an error with a message, and no sudden end.
    signal(SIGPIPE, SIG_IGN)
    Console.holdClosedStreams()
    StandardDescriptors.fill()
    DescriptorLimit.raise()
    let status = unsafe run(String.hostWords(CommandLine.unsafeArgv, count: CommandLine.argc))
    exit(Console.close() ? status : max(status, 1))
  }

  /// Runs one command and says with what status the process is to end.
  static func run(_ arguments: [String]) -> CInt {
    do throws(VerbFailure) {
      guard arguments.count > 1 else { throw .usage("Not enough arguments") }
      let parsed = OptionParser.parse(
        arguments, VerbTable.globalOptions + [VerbTable.generator], stoppingAtFirstOperand: true)
      var trace = TraceArguments()
      // They hold for every image that the command opens, so the command takes them.
      var forVerb: [String] = []
      for option in parsed.options {
        switch option.key {
        case OptionRule.allowPath.key: forVerb += ["--" + option.key, option.value]
        case "help": return showHelp()
        case "version": return showVersion()
        case "generate": return try generate(option.value)
        case "trace" where option.value == "help" || option.value == "?":
          Console.write(TraceArguments.list)
          return 0
        case "trace": try trace.take(option.value)
        default: throw option.failure
        }
      }
      guard let name = parsed.operands.first else { throw .usage("Not enough arguments") }
      guard let verb = VerbTable.verb(named: name) else { throw .usage("Command not found: \(name)") }
      try trace.start()
      return try verb.run([name] + forVerb + parsed.operands.dropFirst())
    } catch {
      Interruption.endProcess()
      return Console.report(error)
    }
  }

  private static func showHelp() -> CInt {
    Console.write(HelpText.whole)
    return 0
  }

  private static func showVersion() -> CInt {
    Console.write(HelpText.version)
    return 0
  }

  /// What is made from the table for others to install.
  private static func generate(_ kind: String) throws(VerbFailure) -> CInt {
    switch kind {
    case "man": Console.write(ManualPage.text)
    case "bash": Console.write(BashCompletion.text)
    case "zsh": Console.write(ZshCompletion.text)
    case "fish": Console.write(FishCompletion.text)
    default: throw VerbFailure("--generate must be used with man, bash, zsh or fish as argument.")
    }
    return 0
  }
}
