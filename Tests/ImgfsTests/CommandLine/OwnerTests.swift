import Foundation
import TestSupport
import Testing

/// Whose the files are, who may look, and mounts of people who are not root.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized)
struct OwnerTests {
  /// The user "nobody".
  private static let asNobody = [
    "/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
  ]

  /// Numbers of the owner and the group, and the mode.
  private static func owner(of path: String) throws -> String {
    String(try TestProcess.run(["/usr/bin/stat", "-c", "%u %g %a", path]).expecting(0).stdoutText.dropLast())
  }

  private func withDisk(_ body: (_ folder: TemporaryFolder, _ disk: String) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      // Everybody may pass through the folder to what is mounted there.
      try TestProcess.run(["/bin/chmod", "755", folder.path]).expecting(0)
      try body(folder, try folder.write([UInt8](repeating: 9, count: 65_536), to: "disk.raw"))
    }
  }

  @Test(arguments: [
    ("uid=12,gid=34,umask=027", "12 34 440", "12 34 550"), ("umask=0777", "0 0 0", "0 0 0"),
    ("uid=4000000000", "4000000000 0 444", "4000000000 0 555"), ("rw,gid=5,umask=007", "0 5 640", "0 5 750"),
  ])
  func showsTheOwnerAndModeThatAreAskedFor(_ options: String, _ file: String, _ root: String) throws {
    try withDisk { folder, disk in
      try MountedImage.with(disk, options: ["-F", "raw", "-o", options], in: folder) { mount in
        let shown = (try Self.owner(of: mount.file("disk.raw")), try Self.owner(of: mount.path))
        #expect(shown == (file, root))
      }
    }
  }

  @Test(arguments: [
    ("ro", false), ("allow_other", true), ("allow_other,umask=004", false),
    ("allow_other,uid=65534,umask=077", true),
  ])
  func othersLookOnlyWhereTheyMay(_ options: String, _ mayLook: Bool) throws {
    try withDisk { folder, disk in
      try MountedImage.with(disk, options: ["-o", options], in: folder) { mount in
        let result = try TestProcess.run(Self.asNobody + ["/usr/bin/cmp", mount.file("disk.raw"), disk])
        #expect((result.status == 0) == mayLook, "\(result.stderrText)")
      }
    }
  }

  /// A file below that the system does not let the user read is as one that is missing.
  @Test(.enabled(if: MountedImage.ordinaryUsersMay)) func filesThatMayNotBeReadAreMissing() throws {
    try withDisk { folder, disk in
      let (imgfs, top) = (folder.file("imgfs"), folder.file("top.qcow2"))
      try TestProcess.run(["/bin/cp", BuiltProduct.imgfs.path, imgfs]).expecting(0)
      try ReferenceTool.create(
        top, format: "qcow2", size: 1 << 18, options: ["cluster_size=4k"], over: ("disk.raw", "raw"))
      try ReferenceTool.io(["write -P 4 4k 4k"], on: top, format: "qcow2")
      try TestProcess.run(["/bin/chmod", "000", disk]).expecting(0)
      let mountPoint = try folder.makeFolder("mnt")
      unsafe #expect(chown(mountPoint, 65534, 65534) == 0)
      func user(_ words: String...) throws -> ProcessResult { try TestProcess.run(Self.asNobody + words) }
      let result = try user(imgfs, top, mountPoint).expecting(0)
      #expect(
        result.stderrText.contains("warning: Could not open backing file: Could not open '\(disk)': Perm"))
      func block(_ number: Int) throws -> ProcessResult {
        try user("/bin/dd", "if=\(mountPoint)/disk.raw", "bs=4k", "count=1", "skip=\(number)", "status=none")
      }
      #expect(try block(1).expecting(0).stdoutText == String(repeating: "\u{4}", count: 4096))
      #expect(try block(0).stderrText.contains("Input/output error"))
      try user(imgfs, "--unmount", mountPoint).expecting(0)
    }
  }

  /// The whole life of a mount of somebody who has to ask fusermount3. The program is copied to where everybody may
  /// start it.
  @Test(.enabled(if: MountedImage.ordinaryUsersMay)) func ordinaryUsersMount() throws {
    try withDisk { folder, disk in
      let imgfs = folder.file("imgfs")
      try TestProcess.run(["/bin/cp", BuiltProduct.imgfs.path, imgfs]).expecting(0)
      let mountPoint = try folder.makeFolder("mnt")
      func user(_ words: String...) throws -> ProcessResult { try TestProcess.run(Self.asNobody + words) }

      // Not theirs.
      let refused = try user(imgfs, disk, mountPoint)
      #expect(refused.status == 1 && refused.stderrText.contains("Could not mount at '\(mountPoint)'"))
      unsafe #expect(chown(mountPoint, 65534, 65534) == 0)
      let others = try user(imgfs, "-o", "allow_other", disk, mountPoint)
      #expect(others.status == 1, "unless /etc/fuse.conf has user_allow_other")
      #expect(others.stderrText.contains("user_allow_other"))

      try user(imgfs, disk, mountPoint).expecting(0)
      #expect(try user("/usr/bin/cmp", mountPoint + "/disk.raw", disk).status == 0)
      #expect(
        try user("/usr/bin/stat", "-c", "%u %g", mountPoint + "/disk.raw").stdoutText == "65534 65534\n")
      try user(imgfs, "--unmount", mountPoint).expecting(0)
      #expect(!MountedImage.isMounted(mountPoint))
    }
  }
}
