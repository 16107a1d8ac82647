import FormatEngine
import Glibc

@main
enum Main {
  static let version = "0.1.0"

  static func main() {
    DescriptorLimit.raise()
    let arguments = unsafe String.hostWords(CommandLine.unsafeArgv, count: CommandLine.argc).dropFirst()
    do throws(UsageError) {
      exit(run(try MountOptions.parse(Array(arguments))))
    } catch {
      if let sentence = error.sentence { Terminal.complain(sentence) }
      Terminal.write("Try 'imgfs --help' for more information.\n", to: STDERR_FILENO)
      exit(2)
    }
  }

  /// The exit status.
  private static func run(_ invocation: Invocation) -> CInt {
    do throws(EngineError) {
      switch invocation {
      case .help: Terminal.print(MountOptions.help)
      case .version: Terminal.print("imgfs \(version)\n")
      case .unmount(let mountPoint): try Unmounter.unmount(mountPoint)
      case .mount(let options): try Mount.run(options)
      }
      return 0
    } catch {
      Terminal.complain(error.message)
      return 1
    }
  }
}
