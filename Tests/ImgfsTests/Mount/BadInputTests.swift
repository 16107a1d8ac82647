import Foundation
import TestSupport
import Testing

/// A clear sentence, an exit status, and nothing left behind.
@Suite(.serialized) struct BadInputTests {
  private func expectRefusal(
    _ arguments: [String], status: Int = 1, saying sentence: String,
    location: SourceLocation = #_sourceLocation
  ) throws {
    let result = try BuiltProduct.imgfs.run(arguments, timeout: 20)
    #expect(result.status == status && !result.timedOut, sourceLocation: location)
    #expect(result.stderrText.hasPrefix("imgfs: "), sourceLocation: location)
    #expect(result.stderrText.contains(sentence), "\(result.stderrText)", sourceLocation: location)
    #expect(result.stdout.isEmpty, sourceLocation: location)
    if let mountPoint = arguments.last {
      #expect(!MountedImage.isMounted(mountPoint), sourceLocation: location)
    }
  }

  private func withImage(_ body: (TemporaryFolder, _ image: String, _ mountPoint: String) throws -> Void)
    throws
  {
    try TemporaryFolder.with { folder in
      let image = try folder.write([UInt8](repeating: 1, count: 65_536), to: "disk.raw")
      try body(folder, image, try folder.makeFolder("mnt"))
    }
  }

  @Test func refusesCommandLinesThatMakeNoSense() throws {
    try expectRefusal([], status: 2, saying: "Expecting an image and a mount point")
    try expectRefusal(["--nosuch"], status: 2, saying: "unrecognized option '--nosuch'")
    try expectRefusal(["-o", "nosuch", "a", "b"], status: 2, saying: "Unknown mount option 'nosuch'")
  }

  @Test(.enabled(if: MountedImage.isPossible)) func refusesBadMountPoints() throws {
    try withImage { folder, image, mountPoint in
      for front in [[], ["-f"]] {
        let missing = folder.file("missing")
        try expectRefusal(
          front + [image, missing], saying: "Could not mount at '\(missing)': No such file or directory")
        try expectRefusal(front + [image, image], saying: "Could not mount at '\(image)': Not a directory")
        try expectRefusal(
          front + [image, folder.path], saying: "Could not mount at '\(folder.path)': Directory not empty")
      }
      try MountedImage.with(image, in: folder) { mount in
        let result = try BuiltProduct.imgfs.run([image, mount.path])
        #expect(result.status == 1)
        #expect(result.stderrText.contains("Something is mounted there already (\(image), fuse.imgfs)"))
        #expect(Files.exists(mount.file("disk.raw")))
      }
    }
  }

  @Test(.enabled(if: MountedImage.isPossible)) func refusesBadImages() throws {
    try withImage { folder, _, mountPoint in
      let missing = folder.file("missing.qcow2")
      try expectRefusal(
        [missing, mountPoint], saying: "Could not open '\(missing)': No such file or directory")
      try expectRefusal(
        [folder.path, missing, mountPoint], saying: "Could not open '\(missing)': No such file or directory")
      let empty = try folder.write([], to: "empty")
      try expectRefusal([empty, mountPoint], saying: "Could not open '\(empty)': The file is empty")
      let pipe = folder.file("pipe")
      #expect(unsafe mkfifo(pipe, 0o644) == 0)
      try expectRefusal([pipe, mountPoint], saying: "Could not open '\(pipe)'")
      let short = try folder.write([0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3], to: "short.qcow2")
      try expectRefusal([short, mountPoint], saying: "Could not open '\(short)'")
      let raw = try folder.write([UInt8](repeating: 0, count: 4096), to: "zeros")
      try expectRefusal(["-F", "qcow2", raw, mountPoint], saying: "not in qcow2 format")
      try expectRefusal(["-F", "nosuch", raw, mountPoint], saying: "Unknown driver 'nosuch'")
    }
  }

  @Test(.enabled(if: MountedImage.isPossible)) func refusesBadBackingFiles() throws {
    try withImage { folder, _, mountPoint in
      let top = folder.file("top.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", "-u", "-b", "top.qcow2", "-F", "qcow2", top, "1M")
      for options in [[], ["-o", "rw"], ["--overlay", "tmp"]] {
        try expectRefusal(options + [top, mountPoint], saying: "loop")
      }
    }
  }

  /// A private /dev without the device; the machine's own is not touched.
  @Test(.enabled(if: MountedImage.canLoopMount)) func saysThatTheDeviceIsMissing() throws {
    try withImage { folder, image, mountPoint in
      let imgfs = try BuiltProduct.imgfs.path
      func run(_ preparation: String) throws -> ProcessResult {
        try TestProcess.run([
          "/usr/bin/unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c",
          "\(preparation) && exec \"$0\" \"$1\" \"$2\"", imgfs, image, mountPoint,
        ])
      }
      let missing = try run("mount -t tmpfs none /dev && touch /dev/null")
      #expect(missing.status == 1)
      #expect(missing.stderrText.hasPrefix("imgfs: Could not open '/dev/fuse': No such file or directory"))
      let noDevice = try run("mount -t tmpfs none /dev && touch /dev/null /dev/fuse")
      #expect(noDevice.status == 1)
      #expect(noDevice.stderrText.hasPrefix("imgfs: Could not open '/dev/fuse': It is not a device"))
      let otherDevice = try run("mount --bind /dev/null /dev/fuse")
      #expect(otherDevice.status == 1)
      #expect(otherDevice.stderrText.hasPrefix("imgfs: Could not mount at '\(mountPoint)'"))
    }
  }
}
