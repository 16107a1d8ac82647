import Foundation
import TestSupport
import Testing

/// Mounts of images that are made to use up memory: what they show is listed, and looked at one by one, in little
/// memory.
@Suite(.enabled(if: MountedImage.isPossible && Effort.current == .soak)) struct MountLimitsTests {
  /// KiB beyond what the work needs.
  private static let margin = 96 << 10

  /// Lists the tree down to the names in `snapshots` and `partitions`, asks for the attributes of each, and reads a
  /// little of every file above.
  private static let look = """
    import os, sys
    def look(path, depth):
        for entry in os.scandir(path):
            os.stat(entry.path, follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                if os.path.basename(path) not in ("snapshots", "partitions"):
                    look(entry.path, depth + 1)
            elif os.path.basename(path) not in ("snapshots", "partitions"):
                try:
                    with open(entry.path, "rb") as file:
                        file.read(4096)
                except OSError:
                    pass
    try:
        look(sys.argv[1], 0)
    except OSError as error:
        print(error)
    """

  /// The most memory that a process has used until now, in KiB.
  private static func peak(of process: pid_t) throws -> Int {
    let text = String(decoding: try Files.read("/proc/\(process)/status"), as: UTF8.self)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
    return try #require(line.split(separator: " ").compactMap { Int($0) }.first)
  }

  private static func peakOfLooking(
    _ image: String, _ format: String?, in folder: TemporaryFolder
  ) throws -> Int {
    let options = format.map { ["-F", $0] } ?? []
    return try MountedImage.with(image, options: options, in: folder, timeout: 400) { mount in
      try TestProcess.run(["/usr/bin/python3", "-c", look, mount.path], timeout: 300).expecting(0)
      return try peak(of: mount.process)
    }
  }

  private static let baseline = Result {
    try TemporaryFolder.with { folder in
      try BuiltProduct.qemuImg.run(["create", "-q", "-f", "qcow2", "image", "1M"], folder: folder.path)
        .expecting()
      return try peakOfLooking(folder.file("image"), nil, in: folder)
    }
  }

  @Test(arguments: ExhaustingImage.all.filter { $0.isMountable && ChosenRows.contain($0.description) })
  func mountedImageUsesUpNoMemory(_ image: ExhaustingImage) throws {
    let baseline = try Self.baseline.get()
    try image.with { folder in
      let peak: Int
      do {
        peak = try Self.peakOfLooking(folder.file(image.name), image.format, in: folder)
      } catch let failure as TestFailure {
        // Refused in words, with the status for that.
        let words = failure.description
        #expect(words.hasPrefix(try BuiltProduct.imgfs.path), "\(image): \(words)")
        #expect(words.contains("exit status 1 instead of 0\n"), "\(image): \(words)")
        #expect(words.split(separator: "\n").count > 1, "\(image): \(words)")
        return
      }
      let needed = image.needed["mount"] ?? 0
      #expect(
        peak <= baseline + Self.margin + needed << 10,
        "\(image): \(peak / 1024) MiB, where a plain image takes \(baseline / 1024) MiB")
    }
  }
}
