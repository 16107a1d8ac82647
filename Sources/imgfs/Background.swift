import FormatEngine
import Glibc

/// The way into the background: the process that was started waits until its child has mounted the tree,
/// or has failed and said so, and then ends with the child's exit status.
///
/// The fork comes first, while there is one thread and no image is open: threads, locks and libfuse's
/// state do not survive a fork.
struct Background: Sendable {
  /// The child's end of the pipe, over which it says that the tree is there.
  private let descriptor: CInt
  /// What the process was started with besides the standard three. Whoever started it must not find a
  /// file, a pipe or a lock in use for as long as the tree is mounted.
  private let inherited: [CInt]

  /// Returns in the child only; the parent waits and exits. Throws where there can be no child.
  static func enter(mountPoint: String) throws(EngineError) -> Background {
    let inherited = openDescriptors()
    var ends: [CInt] = [0, 0]
    guard unsafe pipe(&ends) == 0 else { throw .systemCall("Could not make a pipe", errno: errno) }
    _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
    _ = fcntl(ends[1], F_SETFD, FD_CLOEXEC)
    let child = fork()
    guard child >= 0 else { throw .systemCall("Could not start a process", errno: errno) }
    if child == 0 {
      close(ends[0])
      return Background(descriptor: ends[1], inherited: inherited)
    }
    close(ends[1])
    exit(wait(for: child, over: ends[0], mountPoint))
  }

  private static func openDescriptors() -> [CInt] {
    (HostFiles.names(inFolder: "/proc/self/fd") ?? []).compactMap { CInt($0) }.filter {
      // The one through which the folder was read is closed again.
      $0 > STDERR_FILENO && fcntl($0, F_GETFD) >= 0
    }
  }

  /// The exit status of the process that was started.
  private static func wait(for child: pid_t, over descriptor: CInt, _ mountPoint: String) -> CInt {
    var word: UInt8 = 0
    var count = 0
    repeat { count = unsafe read(descriptor, &word, 1) } while count < 0 && errno == EINTR
    if count == 1 {
      // The first request of all; its answer shows that kernel and child understand each other.
      var status = stat()
      if unsafe mountPoint.withHostBytes({ unsafe stat($0, &status) }) == 0 { return 0 }
      Terminal.complain("Could not mount at '\(mountPoint)': \(EngineError.systemErrorText(errno))")
      return 1
    }
    // The end of the pipe: the child has ended, and has said why.
    var status: CInt = 0
    while unsafe waitpid(child, &status, 0) < 0 && errno == EINTR {}
    if status & 0x7f == 0 { return max(1, (status >> 8) & 0xff) }
    Terminal.complain("The process that was to serve '\(mountPoint)' was ended by signal \(status & 0x7f)")
    return 1
  }

  /// Lets go of the terminal and, unless names that start from it are still needed, of the folder it was started in, and
  /// lets the parent end.
  func mountIsReady(keepingFolder: Bool) {
    setsid()
    if !keepingFolder { _ = unsafe chdir("/") }
    let nothing = unsafe open("/dev/null", O_RDWR)
    if nothing >= 0 {
      for standard in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] { dup2(nothing, standard) }
      if nothing > STDERR_FILENO { close(nothing) }
    }
    Terminal.leave()
    for number in inherited { close(number) }
    var word: UInt8 = 1
    _ = unsafe write(descriptor, &word, 1)
    close(descriptor)
  }
}
