public import Glibc

/// What a finished command left.
public struct ProcessResult: Sendable {
  /// Exit status; 128 + signal where a signal ended it.
  public var status: Int
  public var stdout: [UInt8]
  public var stderr: [UInt8]
  public var timedOut: Bool
  /// The command as typed, for messages.
  public var command: String

  public var stdoutText: String { String(decoding: stdout, as: UTF8.self) }
  public var stderrText: String { String(decoding: stderr, as: UTF8.self) }

  /// Itself, when the exit status is `expected`; else a failure that shows what was printed.
  @discardableResult
  public func expecting(_ expected: Int = 0) throws(TestFailure) -> ProcessResult {
    guard status == expected, !timedOut else {
      throw TestFailure(
        "\(command): exit status \(status)\(timedOut ? " after the time limit" : "") instead of \(expected)\n"
          + stdoutText.suffix(2000) + stderrText.suffix(2000))
    }
    return self
  }
}

/// A command that runs in a process group of its own, with its output in unnamed files: what it leaves
/// running cannot keep the test waiting.
public final class TestProcess {
  public let pid: pid_t
  public let command: String
  private let output: CInt
  private let errors: CInt
  private var status: CInt?

  /// Starts `arguments[0]`, a path.
  ///
  /// - Parameters:
  ///   - environment: added to this process's own.
  ///   - stdin: a file to read from, /dev/null unless given.
  public init(
    _ arguments: [String], environment: [String: String] = [:], folder: String? = nil,
    stdin: String = "/dev/null"
  ) throws(TestFailure) {
    command = arguments.joined(separator: " ")
    guard !arguments.isEmpty else { throw TestFailure("No command") }
    let arguments = folder.map { ["/usr/bin/env", "-C", $0] + arguments } ?? arguments
    output = try Self.unnamedFile()
    errors = try Self.unnamedFile()
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, stdin, O_RDONLY, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, errors, 2)
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    // The threads that run tests block signals, which the command would have to live with.
    var (none, all) = (sigset_t(), sigset_t())
    unsafe sigemptyset(&none)
    unsafe sigfillset(&all)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setsigdefault(&attributes, &all)
    unsafe posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    unsafe posix_spawnattr_setpgroup(&attributes, 0)

    var pid: pid_t = 0
    let result = unsafe Self.withCStrings(arguments) { argv in
      unsafe Self.withCStrings(Self.merged(environment)) { envp in
        unsafe posix_spawn(&pid, arguments[0], &actions, &attributes, argv, envp)
      }
    }
    self.pid = pid
    guard result == 0 else { throw TestFailure("Could not start '\(command)': errno \(result)") }
  }

  deinit {
    if status == nil && pid > 0 {
      kill(-pid, SIGKILL)
      waitpid(pid, nil, 0)
    }
    close(output)
    close(errors)
  }

  /// Runs a command to its end.
  public static func run(
    _ arguments: [String], environment: [String: String] = [:], folder: String? = nil,
    stdin: String = "/dev/null", timeout: Double = 60
  ) throws(TestFailure) -> ProcessResult {
    try TestProcess(arguments, environment: environment, folder: folder, stdin: stdin).wait(timeout: timeout)
  }

  public func signal(_ number: CInt) { if status == nil { kill(pid, number) } }

  public var isRunning: Bool {
    poll()
    return status == nil
  }

  /// Waits for its end; when the time (in seconds) is over, its whole group is killed.
  public func wait(timeout: Double = 60) -> ProcessResult {
    var timedOut = false
    let end = Self.now() + timeout
    var pause: UInt32 = 200
    while status == nil {
      poll()
      if status != nil { break }
      if Self.now() > end && !timedOut {
        timedOut = true
        kill(-pid, SIGKILL)
      }
      usleep(pause)
      pause = min(pause * 2, 1000)
    }
    return ProcessResult(
      status: exitStatus, stdout: Self.content(of: output), stderr: Self.content(of: errors),
      timedOut: timedOut,
      command: command)
  }

  /// What it has printed until now.
  public var stdoutSoFar: [UInt8] { Self.content(of: output) }
  public var stderrSoFar: [UInt8] { Self.content(of: errors) }

  private func poll() {
    guard status == nil else { return }
    var result: CInt = 0
    if unsafe waitpid(pid, &result, WNOHANG) == pid { status = result }
  }

  private var exitStatus: Int {
    let status = Int(status ?? 0)
    return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
  }

  private static func now() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  private static func unnamedFile() throws(TestFailure) -> CInt {
    var template = Array("\(TemporaryFolder.base)/imgfs-output-XXXXXX".utf8CString)
    let descriptor = unsafe mkstemp(&template)
    guard descriptor >= 0 else { throw TestFailure("Could not make a temporary file: errno \(errno)") }
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    _ = fcntl(descriptor, F_SETFL, O_APPEND)
    unsafe unlink(template)
    return descriptor
  }

  private static func content(of descriptor: CInt) -> [UInt8] {
    let size = Int(lseek(descriptor, 0, SEEK_END))
    guard size > 0 else { return [] }
    return unsafe [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
      count = unsafe max(0, pread(descriptor, buffer.baseAddress, size, 0))
    }
  }

  private static func merged(_ added: [String: String]) -> [String] {
    var result: [String] = []
    var next = unsafe environ
    while let entry = unsafe next.pointee {
      let text = unsafe String(cString: entry)
      let name = String(text.prefix { $0 != "=" })
      if added[name] == nil { result.append(text) }
      unsafe next += 1
    }
    return result + added.map { "\($0.key)=\($0.value)" }
  }

  private static func withCStrings<T>(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> T
  ) -> T {
    var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) } + [nil]
    // Not `for unsafe pointer in`: swift format 6.3 takes the space away behind `unsafe` there.
    defer { unsafe pointers.forEach { unsafe free($0) } }
    return unsafe pointers.withUnsafeMutableBufferPointer { raw in
      guard let base = raw.baseAddress else { preconditionFailure("never empty") }
      return unsafe body(base)
    }
  }
}
