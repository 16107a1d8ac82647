import CommandLine
import FormatEngine
import Glibc

@main
enum Main {
  static let version = "0.1.0"

  static func main() {
    StandardDescriptors.fill()
    DescriptorLimit.raise()
    // Whoever starts this process may not care for its children. Where that is inherited, they end without a status.
    signal(SIGCHLD, SIG_DFL)
    let words = unsafe String.hostWords(CommandLine.unsafeArgv, count: CommandLine.argc)
    let isHelper = MountHelperLine.isName(words.first ?? "")
    do throws(UsageError) {
      let arguments = Array(words.dropFirst())
      let invocation =
        try isHelper ? .mount(MountHelperLine.parse(arguments)) : Invocation.parse(arguments)
      let succeeded = run(invocation)
      exit(succeeded ? 0 : isHelper ? MountHelperLine.failureStatus : 1)
    } catch {
      Terminal.complain(error.sentence)
      Terminal.write("Try 'imgfs --help' for more information.\n", to: STDERR_FILENO)
      exit(isHelper ? MountHelperLine.usageStatus : 2)
    }
  }

  /// False where it failed, which has been said then.
  private static func run(_ invocation: Invocation) -> Bool {
    do throws(EngineError) {
      switch invocation {
      case .help: Terminal.print(HelpText.text)
      case .version: Terminal.print("imgfs \(version)\n")
      case .text(let text): Terminal.print(text)
      case .generate(let kind): Terminal.print(try GeneratedText.text(kind))
      case .unmount(let mountPoint): try Unmounter.unmount(mountPoint)
      case .commit(let mountPoint): try RunningMount(mountPoint).commit()
      case .mount(let options): try Mount.run(options)
      }
      return true
    } catch {
      Terminal.complain(error)
      return false
    }
  }
}
