import Glibc

/// Images that Debian's QEMU has open, as a running virtual machine has them.
public enum Holder {
  /// Runs `body` while qemu-storage-daemon, started in `folder`, has `node` open: the options of a `--blockdev`.
  public static func with<T>(_ node: String, in folder: String, _ body: () throws -> T) throws -> T {
    let pidFile = "\(folder)/holder.pid"
    let process = try TestProcess(
      [ReferenceTool.storageDaemon.path, "--blockdev", node + ",node-name=held", "--pidfile", pidFile],
      folder: folder)
    defer {
      // It has written nothing. SIGTERM may reach a thread of it that does not care.
      process.signal(SIGKILL)
      _ = process.wait(timeout: 10)
      unsafe unlink(pidFile)
    }
    // Written when all is open; it is there, and empty, a moment before.
    let isReady = { (try? Files.read(pidFile))?.last == UInt8(ascii: "\n") }
    guard MountedImage.waits(until: { isReady() || !process.isRunning }), process.isRunning else {
      throw TestFailure("\(process.command): \(process.wait(timeout: 1).stderrText)")
    }
    return try body()
  }

  /// The node of a file of which somebody takes and does not share permissions, as QEMU calls them.
  public static func file(_ name: String, taking: [String] = [], withholding: [String] = []) -> String {
    let taken = taking.enumerated().map { ",take-child-perms.\($0)=\($1)" }
    let withheld = withholding.enumerated().map { ",unshare-child-perms.\($0)=\($1)" }
    return "blkdebug,image.driver=file,image.filename=\(name)" + (taken + withheld).joined()
  }
}
