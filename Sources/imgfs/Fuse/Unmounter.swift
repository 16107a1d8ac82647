internal import CFuse
import FormatEngine
import Glibc

/// Takes a tree away and waits until the process that served it has ended.
enum Unmounter {
  /// A process that has nothing to write ends at once, and one that has much to write goes on for as long as it takes.
  /// One that reads, writes and counts nothing for ten minutes waits for storage that hangs.
  private static let patienceSeconds = 600.0
  /// How often that is looked at.
  private static let lookMilliseconds: CInt = 1000
  /// For a second, at 20 ms each: a loop device lets go of its file only a moment after the file system on
  /// it is unmounted.
  private static let busyAttempts = 50

  static func unmount(_ given: String) throws(EngineError) {
    let path = try mountedPath(given)
    guard let entry = MountEntry.find(at: path), entry.type == MountEntry.imgfsType else {
      throw .invalid("'\(given)' is not a mount point of imgfs")
    }
    // Before the mount is gone: afterwards nobody knows the process any more.
    let process = servingProcess(of: path)
    let handle = process.map { pidfd_open($0.id, 0) } ?? -1
    defer { if handle >= 0 { close(handle) } }
    try WaitingLine.during("Waiting until all of '\(given)' is written") { () throws(EngineError) in
      try detach(path, given)
      // The number may have been given to another process between the question and pidfd_open.
      guard let process, handle >= 0, process.isRunning else { return }
      try waitForEnd(of: process, handle, given)
    }
  }

  private static func waitForEnd(of process: ServingProcess, _ handle: CInt, _ given: String)
    throws(EngineError)
  {
    var seen = process.activity
    var seenAt = MonotonicClock.seconds
    while true {
      var waiting = pollfd(fd: handle, events: Int16(POLLIN), revents: 0)
      if unsafe poll(&waiting, 1, lookMilliseconds) > 0 { return }
      let now = process.activity
      if now != seen { (seen, seenAt) = (now, MonotonicClock.seconds) }
      guard MonotonicClock.seconds - seenAt < patienceSeconds else {
        throw EngineError(
          .system(errno: ETIMEDOUT),
          "'\(given)' is unmounted, but process \(process.id) still runs, and has done nothing for"
            + " \(Int(patienceSeconds / 60)) minutes",
          path: given)
      }
    }
  }

  /// The path as the kernel's table has it. A mount whose process is gone cannot be resolved itself, so
  /// its parent folder is.
  private static func mountedPath(_ given: String) throws(EngineError) -> String {
    do throws(EngineError) {
      return try HostFiles.realPath(given)
    } catch {
      guard error.errno == ENOTCONN else { throw error }
      var trimmed = given[...]
      while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed = trimmed.dropLast() }
      let name = ImageName.lastComponent(of: String(trimmed))
      let folder = try HostFiles.realPath(ImageName.join(".", toFolderOf: String(trimmed)))
      return folder == "/" ? "/\(name)" : "\(folder)/\(name)"
    }
  }

  /// Nil where nobody answers for the mount any more.
  private static func servingProcess(of path: String) -> ServingProcess? {
    var value = [UInt8](repeating: 0, count: 64)
    let count = unsafe path.withHostBytes {
      unsafe getxattr($0, ServingProcess.attributeName, &value, value.count)
    }
    guard count > 0 else { return nil }
    let process = ServingProcess(String(hostBytes: value[..<count]))
    return process?.isRunning == true ? process : nil
  }

  private static func detach(_ path: String, _ given: String) throws(EngineError) {
    var number: CInt = 0
    for _ in 0..<busyAttempts {
      if unsafe path.withHostBytes({ unsafe umount2($0, CInt(UMOUNT_NOFOLLOW)) }) == 0 { return }
      number = errno
      // Users may unmount what they mounted, with the help of a program that may.
      if number == EPERM, try runHelper(path) { return }
      guard number == EPERM || number == EBUSY else { break }
      usleep(20_000)
    }
    // Its process was about to unmount it.
    if number == EINVAL, MountEntry.find(at: path)?.type != MountEntry.imgfsType { return }
    throw .systemCall("Could not unmount '\(given)'", errno: number == EPERM ? EBUSY : number, path: given)
  }

  private static func runHelper(_ path: String) throws(EngineError) -> Bool {
    let words = CStrings(["fusermount3", "-u", "-q", "--", path])
    var child: pid_t = 0
    let result = unsafe posix_spawnp(&child, "fusermount3", nil, nil, words.pointers, environ)
    guard result == 0 else { throw .systemCall("Could not run 'fusermount3'", errno: result) }
    var status: CInt = 0
    while unsafe waitpid(child, &status, 0) < 0 && errno == EINTR {}
    return status == 0
  }
}
