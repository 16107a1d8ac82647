import Foundation
public import Glibc

/// An image mounted by the built imgfs, for one test. The mount is gone afterwards, also when the test
/// failed; a mount or a process that stays is itself a failure.
public struct MountedImage: Sendable {
  /// The mount point.
  public let path: String
  /// The process that serves it.
  public let process: pid_t

  /// Whether this machine and this user can mount at all.
  public static let isPossible: Bool =
    unsafe access("/dev/fuse", F_OK) == 0 && (geteuid() == 0 || Files.exists("/usr/bin/fusermount3"))
  /// Whether file systems inside images can be mounted too.
  public static let canLoopMount: Bool =
    unsafe isPossible && geteuid() == 0 && access("/dev/loop-control", F_OK) == 0

  /// Whether those who are not root can mount, by fusermount3. udev lets everybody open /dev/fuse; where there is no
  /// udev, scripts/test does.
  public static let ordinaryUsersMay: Bool = {
    var status = stat()
    return unsafe isPossible && Files.exists("/usr/bin/fusermount3") && stat("/dev/fuse", &status) == 0
      && status.st_mode & 0o006 == 0o006
  }()

  /// The path of a name in it.
  public func file(_ name: String) -> String { "\(path)/\(name)" }

  /// Mounts `image` on a new folder in `folder`, runs `body`, and unmounts.
  @discardableResult
  public static func with<T>(
    _ image: String, options: [String] = [], in folder: TemporaryFolder, timeout: Double = 120,
    _ body: (MountedImage) throws -> T
  ) throws -> T {
    try with([image], options: options, in: folder, timeout: timeout, body)
  }

  /// The same with several images.
  public static func with<T>(
    _ images: [String], options: [String] = [], in folder: TemporaryFolder, timeout: Double = 120,
    _ body: (MountedImage) throws -> T
  ) throws -> T {
    try Deadline.within(seconds: timeout, "mount of \(images)") {
      let mountPoint = try folder.makeFolder("mount-\(UUID().uuidString.prefix(8))")
      var process: pid_t?
      defer { leave(mountPoint, process) }
      let pidFile = mountPoint + ".pid"
      try BuiltProduct.imgfs.run(options + ["--pid-file", pidFile] + images + [mountPoint]).expecting(0)
      let text = String(decoding: try Files.read(pidFile), as: UTF8.self)
      guard let serving = pid_t(text.dropLast()) else { throw TestFailure("'\(pidFile)' holds '\(text)'") }
      process = serving
      let result = try body(MountedImage(path: mountPoint, process: serving))
      if isMounted(mountPoint) {
        // A process that another test is just starting may hold a descriptor for a moment.
        _ = waits { (try? BuiltProduct.imgfs.run(["--unmount", mountPoint]).status) == 0 }
      }
      if isMounted(mountPoint) { throw TestFailure("'\(mountPoint)' is still mounted") }
      if isRunning(serving) { throw TestFailure("The process of '\(mountPoint)' still runs") }
      return result
    }
  }

  /// Whether something is mounted there.
  public static func isMounted(_ path: String) -> Bool {
    let table = (try? Files.read("/proc/self/mountinfo")).map { String(decoding: $0, as: UTF8.self) } ?? ""
    return table.split(separator: "\n").contains {
      $0.split(separator: " ").dropFirst(4).first == Substring(path)
    }
  }

  /// Whether a process exists that has not ended; one that only waits for its parent to look has.
  public static func isRunning(_ process: pid_t) -> Bool {
    guard let status = try? Files.read("/proc/\(process)/stat") else { return false }
    let text = String(decoding: status, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return false }
    return !text[text.index(after: end)...].hasPrefix(" Z")
  }

  /// Waits until `condition` holds; false where it does not within the time (in seconds).
  public static func waits(_ seconds: Double = 10, until condition: () throws -> Bool) rethrows -> Bool {
    let end = Deadline.now() + seconds
    while try !condition() {
      if Deadline.now() > end { return false }
      usleep(2000)
    }
    return true
  }

  /// Takes away what a failed test left.
  public static func leave(_ mountPoint: String, _ process: pid_t?) {
    if isMounted(mountPoint) { _ = try? TestProcess.run(["/bin/umount", "--lazy", mountPoint]) }
    if let process, isRunning(process), !waits(2, until: { !isRunning(process) }) { kill(process, SIGKILL) }
  }
}
