import FormatEngine
import Glibc

@main enum Main {
  static func main() {
    let status = run(CommandLine.arguments)
    exit(Console.close() ? status : max(status, 1))
  }

  /// Runs one command and says with what status the process is to end.
  static func run(_ arguments: [String]) -> CInt {
    do throws(VerbFailure) {
      guard arguments.count > 1 else { throw .usage("Not enough arguments") }
      let parsed = OptionParser.parse(arguments, globalOptions, stoppingAtFirstOperand: true)
      // They hold for every image that the command opens, so the command takes them.
      var forVerb: [String] = []
      for option in parsed.options {
        switch option.key {
        case ImageArguments.allowPath.key: forVerb += ["--" + option.key, option.value]
        case "help": return showHelp()
        case "version": return showVersion()
        case "trace": Console.warning("tracing is not built in")
        default: throw option.failure
        }
      }
      guard let name = parsed.operands.first else { throw .usage("Not enough arguments") }
      guard let verb = VerbTable.verb(named: name) else { throw .usage("Command not found: \(name)") }
      return try verb.run([name] + forVerb + parsed.operands.dropFirst())
    } catch {
      return Console.report(error)
    }
  }

  private static let globalOptions = [
    OptionRule("help", "h"), OptionRule("version", "V"), OptionRule("trace", "T", takesValue: true),
    ImageArguments.allowPath,
  ]

  static func showHelp() -> CInt {
    Console.write(HelpText.whole)
    return 0
  }

  private static func showVersion() -> CInt {
    Console.write(HelpText.version)
    return 0
  }
}
