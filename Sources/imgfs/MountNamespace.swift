internal import CFuse
import FormatEngine
import Glibc

/// The mounts that a process sees.
enum MountNamespace {
  /// Leaves this process's for those at `path`, such as /proc/PID/ns/mnt. To be called while there is one thread.
  /// Names stay relative to the folder that is called as the current one was.
  static func enter(_ path: String) throws(EngineError) {
    let descriptor = unsafe path.withHostBytes { unsafe open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else { throw .systemCall("Could not open '\(path)'", errno: errno, path: path) }
    defer { close(descriptor) }
    let folder = HostFiles.currentFolder
    guard setns(descriptor, CInt(IMGFS_CLONE_NEWNS)) == 0 else {
      throw .systemCall("Could not enter the mount namespace '\(path)'", errno: errno, path: path)
    }
    _ = unsafe folder.withHostBytes { unsafe chdir($0) }
  }
}
