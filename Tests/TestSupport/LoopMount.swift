import Foundation

/// File systems in files, mounted by way of a loop device.
public enum LoopMount {
  /// Mounts a file's file system on a new folder while `body` runs.
  @discardableResult
  public static func with<T>(
    _ file: String, _ options: String, in folder: TemporaryFolder, _ body: (String) throws -> T
  ) throws -> T {
    let place = try folder.makeFolder("guest-\(UUID().uuidString.prefix(8))")
    try TestProcess.run(["/bin/mount", "-o", "loop,\(options)", file, place]).expecting(0)
    defer {
      if MountedImage.isMounted(place) { _ = try? TestProcess.run(["/bin/umount", "--lazy", place]) }
    }
    let result = try body(place)
    // A process that another test has just started may hold a descriptor of this one for a moment.
    guard MountedImage.waits(until: { (try? TestProcess.run(["/bin/umount", place]).status) == 0 }) else {
      throw TestFailure("'\(place)' stays in use")
    }
    return result
  }

  /// Digest and name of every file below a folder, sorted.
  public static func digests(below folder: String) throws -> [String] {
    let result = try TestProcess.run(
      ["/usr/bin/find", ".", "-type", "f", "-exec", "/usr/bin/sha256sum", "{}", "+"], folder: folder
    ).expecting(0)
    return result.stdoutText.split(separator: "\n").map(String.init).sorted()
  }

  /// Kind, mode, size and links of every name below a folder, and what links lead to, sorted.
  public static func names(below folder: String) throws -> [String] {
    let result = try TestProcess.run(
      [
        "/usr/bin/find", ".", "-mindepth", "1", "-type", "d", "-printf", "%P %y %m\\n", "-o",
        "-mindepth", "1", "-printf", "%P %y %m %n %s %l\\n",
      ], folder: folder
    ).expecting(0)
    return result.stdoutText.split(separator: "\n").filter { !$0.hasPrefix("lost+found") }
      .map(String.init).sorted()
  }

  /// Files of several sizes in folders of several depths.
  public static func fill(_ place: String) throws {
    let random = try TestProcess.run(["/usr/bin/head", "-c", "3M", "/dev/urandom"]).expecting(0).stdout
    for folder in 0..<5 {
      try FileManager.default.createDirectory(
        atPath: "\(place)/folder \(folder)/deep/er", withIntermediateDirectories: true)
      for file in 0..<12 {
        let byteCount = [0, 1, 511, 4096, 70_000, 1_500_000][file % 6]
        let start = 100_000 * folder + 1000 * file
        let bytes =
          file < 6
          ? [UInt8](repeating: UInt8(1 + file), count: byteCount) : Array(random[start..<start + byteCount])
        try Files.write(bytes, to: "\(place)/folder \(folder)/deep/er/file\(file)")
      }
    }
  }
}
