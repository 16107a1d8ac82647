import FormatEngine
import Glibc

/// The folder that a tree is to be mounted on.
struct MountPoint {
  /// Without symbolic links, "." and "..".
  let path: String

  /// Refuses what cannot be mounted on, or what a mount would hide.
  init(_ given: String) throws(EngineError) {
    func refusal(_ reason: String, _ number: CInt) -> EngineError {
      EngineError(.system(errno: number), "Could not mount at '\(given)': \(reason)", path: given)
    }
    var status = stat()
    guard unsafe given.withHostBytes({ unsafe stat($0, &status) }) == 0 else {
      let number = errno
      let reason =
        number == ENOTCONN
        ? "It is the mount point of a program that has ended; imgfs --unmount frees it"
        : EngineError.systemErrorText(number)
      throw refusal(reason, number)
    }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw refusal(EngineError.systemErrorText(ENOTDIR), ENOTDIR)
    }
    path = try HostFiles.realPath(given)
    if let entry = MountEntry.find(at: path) {
      let advice = entry.type == MountEntry.imgfsType ? "; imgfs --unmount frees it" : ""
      throw refusal("Something is mounted there already (\(entry.source), \(entry.type))\(advice)", EBUSY)
    }
    switch HostFiles.names(inFolder: path, atMost: 1)?.isEmpty {
    case nil: throw refusal(EngineError.systemErrorText(errno), errno)
    case false?: throw refusal(EngineError.systemErrorText(ENOTEMPTY), ENOTEMPTY)
    case true?: break
    }
  }

  /// Says in one sentence what to do where the kernel's door to FUSE is missing.
  static func requireDevice() throws(EngineError) {
    var status = stat()
    guard unsafe stat("/dev/fuse", &status) == 0 else {
      throw EngineError(
        .system(errno: errno),
        "Could not open '/dev/fuse': \(EngineError.systemErrorText(errno)); load the kernel's module with "
          + "'modprobe fuse', or give the container this device")
    }
    guard status.st_mode & S_IFMT == S_IFCHR else {
      throw EngineError(.system(errno: ENODEV), "Could not open '/dev/fuse': It is not a device")
    }
  }
}
