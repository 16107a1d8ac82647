internal import CFuse
import CommandLine
import FormatEngine
import Glibc

/// Unmounts for a process that may not do so itself: an ordinary user's mount is taken away by fusermount3, which has privileges that the
/// confined process can no longer gain. So a second process is there from the start, waits, and does nothing else.
///
/// It ends when the first one does, also where that is killed; then it leaves the mount as it is.
final class WaitingUnmounter: Sendable {
  private let process: pid_t
  /// What is written here is the path of the mount.
  private let descriptor: CInt
  private let isFinished = Guarded(false)

  /// Nil where none is needed: root unmounts by himself. Called while there is one thread.
  static func start() throws(EngineError) -> WaitingUnmounter? {
    guard geteuid() != 0 else { return nil }
    var ends: [CInt] = [0, 0]
    guard unsafe pipe(&ends) == 0 else { throw .systemCall("Could not make a pipe", errno: errno) }
    _ = fcntl(ends[1], F_SETFD, FD_CLOEXEC)
    let child = fork()
    guard child >= 0 else { throw .systemCall("Could not start a process", errno: errno) }
    guard child > 0 else {
      close(ends[1])
      wait(for: ends[0])
    }
    close(ends[0])
    return WaitingUnmounter(process: child, descriptor: ends[1])
  }

  private init(process: pid_t, descriptor: CInt) {
    self.process = process
    self.descriptor = descriptor
  }

  /// Takes the mount away, whoever still has files open there.
  func detach(_ path: String) {
    _ = unsafe path.withHostBytes { unsafe write(descriptor, $0, strlen($0)) }
    finish()
  }

  /// Lets it end, and waits for that.
  func finish() {
    isFinished.withLock { isFinished in
      guard !isFinished else { return }
      isFinished = true
      close(descriptor)
      var status: CInt = 0
      while unsafe waitpid(process, &status, 0) < 0 && errno == EINTR {}
    }
  }

  /// The life of the second process.
  private static func wait(for descriptor: CInt) -> Never {
    setsid()
    _ = unsafe chdir("/")
    // Who ends both ends the first one, which then wants its mount taken away.
    for number in [SIGTERM, SIGINT, SIGHUP] { signal(number, SIG_IGN) }
    closeAll(but: descriptor)
    // It may start programs that the first process may not: nobody who has taken that over is to get at it.
    _ = imgfs_forbid_tracing()
    // One byte more than a path can have stays zero.
    var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    var count = 0
    repeat { count = unsafe read(descriptor, &path, Int(PATH_MAX)) } while count < 0 && errno == EINTR
    if count > 0 { unsafe path.withUnsafeBufferPointer { unsafe detach($0) } }
    _exit(0)
  }

  private static func detach(_ path: UnsafeBufferPointer<CChar>) {
    if let start = path.baseAddress { Unmounter.detachLazily(unsafe String(hostBytes: start)) }
  }

  /// Whoever waits for the end of a pipe or of a lock must not wait for this process.
  private static func closeAll(but kept: CInt) {
    for name in HostFiles.names(inFolder: "/proc/self/fd") ?? [] {
      if let number = CInt(name), number != kept { close(number) }
    }
    // What it starts has the standard descriptors all the same.
    StandardDescriptors.fill()
  }
}
