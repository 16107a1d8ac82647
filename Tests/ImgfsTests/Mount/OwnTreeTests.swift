import Foundation
import Synchronization
import TestSupport
import Testing

/// What is shown leads back into the mount that shows it: whoever serves that never waits for itself.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct OwnTreeTests {
  private final class Flag: Sendable { let isSet = Atomic<Bool>(false) }

  /// Mounts `folder`/images on `folder`/mnt, or what `options` say besides, and runs `body` with the mount point. Where that waits for itself, the connection
  /// is cut off after a while: no signal ends such processes, and whoever asks them.
  private func withMount(
    _ options: [String] = [], of images: String = "images", in folder: TemporaryFolder,
    _ body: (String) throws -> Void
  ) throws {
    let mountPoint = try folder.makeFolder("mnt")
    try Shell.run("mkdir control; mount -t fusectl none control", in: folder)
    defer { _ = try? Shell.run("umount control", in: folder) }
    let pidFile = folder.file("pid")
    try BuiltProduct.imgfs.run(options + ["--pid-file", pidFile, images, mountPoint], folder: folder.path)
      .expecting(0)
    let number = try Shell.run("stat --printf %Ld mnt", in: folder)
    let process = pid_t(String(decoding: try Files.read(pidFile), as: UTF8.self).dropLast())
    defer { MountedImage.leave(mountPoint, process) }
    let (isDone, isCutOff) = (Flag(), Flag())
    let abort = folder.file("control/\(number)/abort")
    let watch = TestThread {
      let isInTime = MountedImage.waits(20) { isDone.isSet.load(ordering: .acquiring) }
      guard !isInTime else { return }
      isCutOff.isSet.store(true, ordering: .releasing)
      // Nothing but the two calls: who waits may hold what others need.
      let control = unsafe open(abort, O_WRONLY | O_CLOEXEC)
      _ = unsafe write(control, "1", 1)
      close(control)
    }
    defer {
      isDone.isSet.store(true, ordering: .releasing)
      watch.join()
      let hasWaited = isCutOff.isSet.load(ordering: .acquiring)
      #expect(!hasWaited, "the mount waits for itself")
    }
    try body(mountPoint)
    try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
  }

  /// Lines for a shell, each with a name of the folder that leads into the mount.
  private static let waysIn = [
    "ln -s ../mnt/a.qcow2/disk.raw images/x.img",
    "ln -s ../mnt/../mnt/./a.qcow2/disk.raw images/x.img",
    "ln -s \"$PWD/mnt/a.qcow2/disk.raw\" hop; ln -s ../hop images/x.img",
    "ln -s mnt hop; ln -s ../hop/a.qcow2/disk.raw images/x.img",
    "ln -s mnt/a.qcow2 hop; ln -s ../hop images/x.hdd",
    "mkdir images/x.hdd; ln -s ../../mnt/a.qcow2/disk.raw images/x.hdd/DiskDescriptor.xml",
  ]

  /// Whoever looks first at the folder, at a name in it, or at what lies deeper.
  @Test(arguments: waysIn, ["ls mnt", "stat mnt/a.qcow2", "cat mnt/a.qcow2/disk.raw"])
  func firstLookStaysOutside(_ way: String, _ look: String) throws {
    try TemporaryFolder.with { folder in
      try Shell.run("mkdir images mnt; \(way)", in: folder)
      try ReferenceTool.create(folder.file("images/a.qcow2"), format: "qcow2", size: 65_536)
      for options in [[], ["-s"]] {
        try withMount(options, in: folder) { mountPoint in
          try Shell.run("timeout 60 \(look) >/dev/null", in: folder)
          #expect(try TemporaryFolder(at: mountPoint).names() == ["a.qcow2"])
          #expect(try Files.read(mountPoint + "/a.qcow2/disk.raw").count == 65_536)
        }
        try Shell.run("rmdir control", in: folder)
      }
    }
  }

  /// The name of a process's folder leads there whatever that is called: only the request tells.
  @Test func linkWithoutANameOfTheMountIsRefused() throws {
    try TemporaryFolder.with { folder in
      try Shell.run("mkdir images other", in: folder)
      try ReferenceTool.create(folder.file("images/a.qcow2"), format: "qcow2", size: 65_536)
      try withMount(in: folder) { mountPoint in
        let inside = try TestProcess([
          "/usr/bin/unshare", "--mount", "/bin/sh", "-c",
          "mount --bind \"$1\" \"$2\"; cd \"$2\"; echo; exec sleep 60", "sh",
          mountPoint, folder.file("other"),
        ])
        defer { inside.signal(SIGKILL) }
        #expect(MountedImage.waits { !inside.stdoutSoFar.isEmpty })
        try Shell.run("ln -s /proc/\(inside.pid)/cwd/a.qcow2/disk.raw images/x.img", in: folder)
        #expect(try TemporaryFolder(at: mountPoint).names() == ["a.qcow2"])
        #expect(try Files.read(mountPoint + "/a.qcow2/disk.raw").count == 65_536)
      }
    }
  }

  /// An image that names the mount's own files, beside the mount and above it.
  @Test(arguments: ["images", "."], ["mnt/a.qcow2/disk.raw", "mnt/a.qcow2/other", "mnt/b.qcow2/disk.raw"])
  func imageThatNamesTheMountIsRefused(_ images: String, _ name: String) throws {
    try TemporaryFolder.with { folder in
      try Shell.run("mkdir -p images mnt", in: folder)
      let prefix = images == "." ? "" : "../"
      try ReferenceTool.create(folder.file("\(images)/b.qcow2"), format: "qcow2", size: 65_536)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-u", "-b", prefix + name, "-F", "raw",
        folder.file("\(images)/a.qcow2"), "64k")
      for options in [[], ["-s"], ["-o", "allow_path=\(folder.path)"]] {
        try withMount(options, of: images, in: folder) { mountPoint in
          try Shell.run("! timeout 60 cat mnt/a.qcow2/disk.raw", in: folder)
          #expect(try Files.read(mountPoint + "/b.qcow2/disk.raw").count == 65_536)
        }
        try Shell.run("rmdir control", in: folder)
      }
    }
  }

  @Test func dataFileInTheMountIsRefused() throws {
    try TemporaryFolder.with { folder in
      try Shell.run("mkdir -p images mnt/a.qcow2", in: folder)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "data_file=\(folder.path)/mnt/a.qcow2/disk.raw",
        folder.file("images/a.qcow2"), "64k")
      try ReferenceTool.create(folder.file("images/b.qcow2"), format: "qcow2", size: 65_536)
      try Shell.run("rm -r mnt", in: folder)
      try withMount(in: folder) { mountPoint in
        try Shell.run("! timeout 60 cat mnt/a.qcow2/disk.raw", in: folder)
        #expect(try Files.read(mountPoint + "/b.qcow2/disk.raw").count == 65_536)
      }
    }
  }
}
