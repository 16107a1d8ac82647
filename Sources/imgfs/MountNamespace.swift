internal import CLinux
import FormatEngine
import Glibc

/// The mounts that a process sees.
enum MountNamespace {
  /// Leaves this process's for those at `path`, such as /proc/PID/ns/mnt. To be called while there is one thread.
  /// Names stay relative to the folder that is called as the current one was: where there is none, and `names` has relative
  /// ones, it is an error.
  static func enter(_ path: String, names: [String]) throws(EngineError) {
    let descriptor = unsafe path.withHostBytes { unsafe open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else { throw .systemCall("Could not open '\(path)'", errno: errno, path: path) }
    defer { close(descriptor) }
    let folder = HostFiles.currentFolder
    guard setns(descriptor, CInt(IMGFS_CLONE_NEWNS)) == 0 else {
      throw .systemCall("Could not enter the mount namespace '\(path)'", errno: errno, path: path)
    }
    guard unsafe folder.withHostBytes({ unsafe chdir($0) }) != 0 else { return }
    let number = errno
    guard names.allSatisfy({ $0.utf8.first == UInt8(ascii: "/") }) else {
      throw .systemCall(
        "Could not enter the folder '\(folder.dropLast())' in the mount namespace '\(path)'", errno: number,
        path: folder)
    }
  }
}
