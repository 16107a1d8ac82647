import CommandLine
import FormatEngine
import Glibc

/// Standard output and standard error. All that qemu-img prints passes here.
enum Console {
  private struct Pending {
    var bytes: [UInt8] = []
    var hasFailed = false
  }

  /// Output waits here, as C's stdio has it, unless a terminal reads it.
  private static let pending = Guarded(Pending())
  private static let isTerminal = isatty(1) == 1
  private static let bufferByteCount = 64 << 10

  static func write(_ text: String) { write(bytes: text.hostBytes) }

  static func write(bytes: [UInt8]) {
    pending.withLock { pending in
      pending.bytes.append(contentsOf: bytes)
      if isTerminal || pending.bytes.count >= bufferByteCount { drain(&pending) }
    }
  }

  /// Holds the places of standard streams that are closed: a file that was opened there would be written into.
  /// They stay as unusable as they were.
  static func holdClosedStreams() {
    for descriptor: CInt in 0...2 where fcntl(descriptor, F_GETFD) < 0 {
      _ = unsafe Glibc.open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY)
    }
  }

  static func flush() { pending.withLock { drain(&$0) } }

  /// Writes what still waits. False where output was lost; that has then been said.
  static func close() -> Bool {
    flush()
    let hasFailed = pending.withLock { $0.hasFailed }
    if hasFailed { error("Could not write to standard output") }
    return !hasFailed
  }

  private static func drain(_ pending: inout Pending) {
    if !Descriptor.write(pending.bytes, to: 1) { pending.hasFailed = true }
    pending.bytes.removeAll(keepingCapacity: true)
  }

  /// One message; its further lines are printed as they are.
  static func error(_ message: String) { _ = Descriptor.write("qemu-img: \(message)\n".hostBytes, to: 2) }

  /// Something that does not end the command.
  static func warning(_ message: String) { error("warning: \(message)") }

  /// Lines on standard error without a name before them: what `check` finds.
  static func note(_ line: String) { _ = Descriptor.write("\(line)\n".hostBytes, to: 2) }

  /// Text on standard error as it is.
  static func writeToErrors(_ text: String) { _ = Descriptor.write(text.hostBytes, to: 2) }

  /// Whether an image lies in the very file that standard output is.
  static func isStandardOutput(_ image: ImageSpecification) -> Bool {
    guard let path = image.filePath, let file = HostFiles.identity(of: path) else { return false }
    return file == HostFiles.identity(of: "/dev/stdout")
  }

  /// A file for lines beside the output, emptied.
  static func openLog(_ path: String) throws(VerbFailure) -> CInt {
    let descriptor = unsafe path.withHostBytes {
      unsafe Glibc.open($0, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o666)
    }
    if descriptor < 0 {
      throw VerbFailure("Error opening logfile \(path): \(EngineError.systemErrorText(errno))")
    }
    return descriptor
  }

  /// A line for that file, or where there is none for standard error.
  static func log(_ line: String, to file: CInt?) {
    _ = Descriptor.write("\(line)\n".hostBytes, to: file ?? 2)
  }

  /// Says what went wrong and gives the exit status.
  static func report(_ failure: VerbFailure) -> CInt {
    for message in failure.messages { error(message) }
    if failure.pointsToHelp { note("Try 'qemu-img --help' for more information") }
    return failure.exitStatus
  }
}

/// Why a command ends early, and with which exit status.
struct VerbFailure: Error {
  var messages: [String]
  var exitStatus: CInt = 1
  /// Ends with a line that names `--help`.
  var pointsToHelp = false

  init(_ messages: String..., exitStatus: CInt = 1) {
    self.init(messages, exitStatus: exitStatus)
  }

  init(_ messages: [String], exitStatus: CInt = 1) {
    self.messages = messages
    self.exitStatus = exitStatus
  }

  /// The engine's error, after words of the command.
  init(_ error: EngineError, prefix: String = "", exitStatus: CInt = 1) {
    messages = [prefix + error.text]
    self.exitStatus = exitStatus
  }

  /// The command line is wrong.
  static func usage(_ message: String) -> VerbFailure {
    var failure = VerbFailure(message)
    failure.pointsToHelp = true
    return failure
  }
}

/// Runs what may fail in the engine, and turns its error into the command's.
func attempt<T>(
  _ prefix: String = "", exitStatus: CInt = 1, _ body: () throws(EngineError) -> T
) throws(VerbFailure) -> T {
  do throws(EngineError) {
    return try body()
  } catch {
    throw VerbFailure(error, prefix: prefix, exitStatus: exitStatus)
  }
}

extension GivenOption {
  /// What to throw where no command knows the option.
  var failure: VerbFailure { .usage(complaint) }
}
