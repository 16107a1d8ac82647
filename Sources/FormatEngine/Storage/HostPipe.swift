internal import CLinux
import Glibc

/// A pipe, a FIFO or a socket: bytes that come, or go, once and in their order.
///
/// Only what the user names is opened as one. Names in images go through `FileStore`, which refuses such files.
final class HostPipe: Sendable {
  enum End { case reading, writing }

  let path: String
  private let descriptor: CInt

  /// Opens what `path` means. A FIFO waits here until somebody has its other end open.
  init(_ path: String, for end: End) throws(EngineError) {
    self.path = path
    if let number = Self.ownDescriptor(path) {
      // Not opened once more: a socket cannot be, nor what belongs to the user that this process was before.
      descriptor = fcntl(number, F_DUPFD_CLOEXEC, 3)
    } else {
      descriptor = retrying {
        unsafe path.withHostBytes { unsafe open($0, (end == .reading ? O_RDONLY : O_WRONLY) | O_CLOEXEC) }
      }
    }
    guard descriptor >= 0 else { throw .systemCall("Could not open '\(path)'", errno: errno, path: path) }
    // A hint: with the usual 64 KiB both sides wait for each other sixteen times as often.
    _ = fcntl(descriptor, CInt(IMGFS_SETPIPE_SZ), CInt(MiB))
  }

  deinit { close(descriptor) }

  /// Whether a path leads to one.
  static func isAt(_ path: String) -> Bool {
    var status = stat()
    guard unsafe path.withHostBytes({ unsafe stat($0, &status) }) == 0 else { return false }
    return status.st_mode & S_IFMT == S_IFIFO || status.st_mode & S_IFMT == S_IFSOCK
  }

  /// The number in names such as `/dev/fd/3`.
  private static func ownDescriptor(_ path: String) -> CInt? {
    switch path {
    case "/dev/stdin": return 0
    case "/dev/stdout": return 1
    case "/dev/stderr": return 2
    default: break
    }
    for folder in ["/dev/fd/", "/proc/self/fd/"] where path.hasPrefix(folder) {
      return CInt(path.dropFirst(folder.utf8.count))
    }
    return nil
  }

  /// Fills `buffer`; less than that only where the other side has ended. Says how many bytes came.
  ///
  /// `proceed` is called while nothing comes, several times a second; what it throws ends the wait.
  func read(
    into buffer: UnsafeMutableRawBufferPointer, waiting proceed: () throws(EngineError) -> Void = {}
  ) throws(EngineError) -> Int {
    var done = 0
    while done < buffer.count {
      // SAFETY: the rest of the buffer.
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
      try waitForBytes(proceed)
      let count = waiting(for: POLLIN) { unsafe Glibc.read(descriptor, rest.baseAddress, rest.count) }
      if count < 0 { throw .systemCall("Could not read from '\(path)'", errno: errno, path: path) }
      if count == 0 { break }
      done += count
    }
    return done
  }

  func write(_ bytes: UnsafeRawBufferPointer) throws(EngineError) {
    var done = 0
    while done < bytes.count {
      // SAFETY: the rest of the bytes.
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
      let count = waiting(for: POLLOUT) { unsafe Glibc.write(descriptor, rest.baseAddress, rest.count) }
      if count < 0 { throw .systemCall("Could not write to '\(path)'", errno: errno, path: path) }
      done += count
    }
  }

  private func waitForBytes(_ proceed: () throws(EngineError) -> Void) throws(EngineError) {
    try proceed()
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while true {
      let count = unsafe poll(&request, 1, Self.patience)
      // Whatever else it may say, `read` tells. A signal is heard here: `read` would go on waiting.
      guard count == 0 || (count < 0 && errno == EINTR) else { return }
      try proceed()
    }
  }

  /// Milliseconds.
  private static let patience: CInt = 100

  /// Others who share the pipe may have made it one that never waits.
  private func waiting(for event: CInt, _ call: () -> Int) -> Int {
    while true {
      let result = retrying(call)
      guard result < 0, errno == EAGAIN else { return result }
      var request = pollfd(fd: descriptor, events: Int16(event), revents: 0)
      unsafe poll(&request, 1, -1)
    }
  }
}
