import Foundation
import TestSupport
import Testing

/// What imgfs finds around it when it is started, and what it says.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct SurroundingsTests {
  /// Descriptors 0, 1 and 2 are closed, as daemons close them: no image takes their place.
  @Test(.enabled(if: MountedImage.canLoopMount), arguments: ["<&- >&- 2>&-", "<&-"])
  func startsWithoutTheStandardDescriptors(_ closed: String) throws {
    try TemporaryFolder.with { folder in
      let file = try folder.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
      let device = String(
        try TestProcess.run(["/sbin/losetup", "--find", "--show", file]).expecting(0).stdoutText.dropLast())
      defer { _ = try? TestProcess.run(["/sbin/losetup", "--detach", device]) }
      let mountPoint = try folder.makeFolder("mnt")
      try TestProcess.run([
        "/bin/sh", "-c", "exec \"$0\" -o rw -F raw \"$1\" \"$2\" \(closed)", try BuiltProduct.imgfs.path,
        device,
        mountPoint,
      ]).expecting(0)
      do {
        defer { _ = try? BuiltProduct.imgfs.run(["--unmount", mountPoint]) }
        try ReferenceTool.io(["write -P 7 64k 64k", "flush"], on: mountPoint + "/disk.raw", format: "raw")
      }
      try ReferenceTool.io(
        ["read -P 7 64k 64k", "read -P 0 0 64k"], on: device, format: "raw", isReadOnly: true)
    }
  }

  /// A passphrase comes through descriptor 0, which goes on being none of the image's.
  @Test(.enabled(if: MountedImage.canLoopMount)) func readsAPassphraseFromStandardInput() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.luks")
      try ReferenceTool.create(image, format: "luks", size: 1 << 20, passphrase: "open sesame")
      let device = String(
        try TestProcess.run(["/sbin/losetup", "--find", "--show", image]).expecting(0).stdoutText.dropLast())
      defer { _ = try? TestProcess.run(["/sbin/losetup", "--detach", device]) }
      let mountPoint = try folder.makeFolder("mnt")
      try TestProcess.run([
        "/bin/sh", "-c", "echo open sesame | \"$0\" -o rw -F luks --passphrase-fd 0 \"$1\" \"$2\"",
        try BuiltProduct.imgfs.path, device, mountPoint,
      ]).expecting(0)
      do {
        defer { _ = try? BuiltProduct.imgfs.run(["--unmount", mountPoint]) }
        try ReferenceTool.io(["write -P 7 64k 64k", "flush"], on: mountPoint + "/disk.raw", format: "raw")
      }
      try ReferenceTool.io(["read -P 7 64k 64k"], on: device, format: "luks", passphrase: "open sesame")
    }
  }

  @Test func showsNamesThatCannotMoveTheCursor() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-u", "-b", "x\u{1B}[31mRED\nimgfs: all is fine\u{202E}", "-F", "raw",
        image, "1M")
      let mountPoint = try folder.makeFolder("mnt")
      let result = try BuiltProduct.imgfs.run([image, mountPoint]).expecting(0)
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      #expect(result.stderrText.contains("x\\u{1b}[31mRED\\u{a}imgfs: all is fine\\u{202e}"))
      #expect(!result.stderrText.contains("\u{1B}") && !result.stderrText.contains("\nimgfs: all"))
    }
  }

  @Test(arguments: [["--snapshot", "then"], ["--overlay", "over.qcow2"]])
  func refusesForAFolderWhatTakesOneImage(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      let result = try BuiltProduct.imgfs.run(
        options + [try folder.makeFolder("images"), try folder.makeFolder("mnt")])
      #expect(result.status == 1)
      #expect(result.stderrText.contains("takes one image"))
      #expect(!MountedImage.isMounted(folder.file("mnt")))
    }
  }

  /// A passphrase comes through another descriptor, the lowest of those that the program is started with: what is opened
  /// later stays open.
  @Test(arguments: [3, 4, 5]) func readsAPassphraseFromAnyDescriptor(_ number: Int) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.luks")
      try ReferenceTool.create(image, format: "luks", size: 1 << 20, passphrase: "open sesame")
      let secret = try folder.write(Array("open sesame\n".utf8), to: "secret")
      let mountPoint = try folder.makeFolder("mnt")
      let others = [3, 4, 5].map { "\($0)<\($0 == number ? secret : "/dev/zero")" }.joined(separator: " ")
      let script =
        "exec \"$0\" -o rw,allow_path=/,allow_path=/usr -F luks --pid-file pid --passphrase-fd \(number) \"$1\" \"$2\" \(others)"
      try TestProcess.run(
        ["/bin/sh", "-c", script, try BuiltProduct.imgfs.path, image, mountPoint], folder: folder.path
      ).expecting(0)
      defer { _ = try? TestProcess.run(["/bin/umount", "--lazy", mountPoint]) }
      try ReferenceTool.io(["write -P 7 64k 64k", "flush"], on: mountPoint + "/disk.raw", format: "raw")
      let held = try Shell.run("ls -l /proc/$(cat pid)/fd | grep -c -e secret -e zero || true", in: folder)
      #expect(held == "0\n")
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      try ReferenceTool.io(["read -P 7 64k 64k"], on: image, format: "luks", passphrase: "open sesame")
    }
  }
}
