import CommandLine
import FormatEngine
import Glibc

/// The file that tells the number of the process that serves a mount, for as long as it does.
///
/// In a folder where others may make files, too, the name may be theirs: nothing that is there is followed or emptied. A file of before is
/// replaced, as one that a killed process has left.
struct PidFile: Sendable {
  private let path: String
  private let identity: HostFiles.Identity?
  /// The file, held open: its number on the file system is given to no other one meanwhile.
  private let descriptor: CInt

  /// Makes the file. Throws where something else than a file has the name.
  init(_ path: String, process: pid_t) throws(EngineError) {
    self.path = path
    var status = stat()
    if unsafe path.withHostBytes({ unsafe lstat($0, &status) }) == 0, status.st_mode & S_IFMT != S_IFREG {
      throw EngineError(
        .system(errno: EEXIST), "'\(path)' is no file: the number of the process is not written there")
    }
    let new = "\(path).\(process)"
    let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
    descriptor = unsafe new.withHostBytes { unsafe Glibc.open($0, flags, 0o644) }
    guard descriptor >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    var failure: String?
    if !Descriptor.write("\(process)\n".hostBytes, to: descriptor) {
      failure = "Could not write '\(path)'"
    } else if unsafe new.withHostBytes({ from in unsafe path.withHostBytes { unsafe rename(from, $0) } }) != 0
    {
      failure = "Could not create '\(path)'"
    }
    guard let failure else {
      identity = HostFiles.identity(of: path)
      return
    }
    let number = errno
    _ = unsafe new.withHostBytes { unsafe unlink($0) }
    close(descriptor)
    throw .systemCall(failure, errno: number, path: path)
  }

  /// Takes it away, unless another file has the name by now. The last call, made once.
  func remove() {
    defer { close(descriptor) }
    guard identity != nil, HostFiles.identity(of: path) == identity else { return }
    _ = unsafe path.withHostBytes { unsafe unlink($0) }
  }
}
