import Foundation
import TestSupport
import Testing

/// How a mount begins and ends.
@Suite(.enabled(if: MountedImage.isPossible), .serialized)
struct LifeTests {
  private func image(in folder: TemporaryFolder) throws -> String {
    try folder.write([UInt8](repeating: 3, count: 1 << 20), to: "disk.raw")
  }

  /// Starts imgfs in front and waits until the tree is there.
  private func startInFront(_ options: [String], _ image: String, _ mountPoint: String) throws -> TestProcess
  {
    let process = try TestProcess([try BuiltProduct.imgfs.path, "-f"] + options + [image, mountPoint])
    guard MountedImage.waits(until: { Files.exists(mountPoint + "/disk.raw") }) else {
      throw TestFailure("No tree: \(process.wait(timeout: 1).stderrText)")
    }
    return process
  }

  @Test func isThereWhenItGoesToTheBackground() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      for _ in 0..<5 {
        try MountedImage.with(image, in: folder) { mount in
          #expect(Files.exists(mount.file("disk.raw")))
          #expect(getsid(mount.process) != getsid(0))
        }
      }
    }
  }

  @Test func letsGoOfWhatItWasStartedWith() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      let held = try folder.write([1], to: "held")
      let mountPoint = try folder.makeFolder("mnt")
      let script = "exec 5<\(held); exec \"$0\" \"$1\" \"$2\""
      try TestProcess.run(["/bin/sh", "-c", script, BuiltProduct.imgfs.path, image, mountPoint]).expecting(0)
      let users = try TestProcess.run([
        "/bin/sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c \(held)",
      ])
      #expect(users.stdoutText == "0\n")
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
    }
  }

  @Test(arguments: [SIGTERM, SIGINT, SIGHUP])
  func unmountsOnASignal(_ number: CInt) throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      for options in [[], ["-s"]] {
        let mountPoint = try folder.makeFolder("mnt")
        let process = try startInFront(options, image, mountPoint)
        process.signal(number)
        let result = process.wait(timeout: 10)
        #expect(result.status == 0 && result.stderrText == "")
        #expect(!MountedImage.isMounted(mountPoint))
      }
    }
  }

  @Test func unmountsInTheBackgroundOnASignal() throws {
    try TemporaryFolder.with { folder in
      try MountedImage.with(try image(in: folder), in: folder) { mount in
        kill(mount.process, SIGTERM)
        #expect(MountedImage.waits { !MountedImage.isRunning(mount.process) })
        #expect(!MountedImage.isMounted(mount.path))
        #expect(!Files.exists(mount.path + ".pid"))
      }
    }
  }

  /// The kernel gives the numbers of a mount that is gone to the next one.
  @Test(.enabled(if: geteuid() == 0)) func endingServerLeavesAMountWithItsNumbers() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      let mountPoint = try folder.makeFolder("mnt")
      let server = try startInFront([], image, mountPoint)
      let numbers = "findmnt --noheadings --output ID,MAJ:MIN"
      let first = try Shell.run("\(numbers) mnt", in: folder)
      server.signal(SIGSTOP)
      defer { server.signal(SIGCONT) }
      try Shell.run("umount --lazy mnt", in: folder)
      try MountedImage.with(image, in: folder) { second in
        let numbersOfSecond = try Shell.run("\(numbers) \(second.path)", in: folder)
        #expect(numbersOfSecond == first)
        server.signal(SIGCONT)
        #expect(server.wait(timeout: 10).status == 0)
        #expect(MountedImage.isMounted(second.path))
        #expect(Files.exists(second.file("disk.raw")))
      }
    }
  }

  @Test func endsOnASignalWhileAFileIsOpen() throws {
    try TemporaryFolder.with { folder in
      let mountPoint = try folder.makeFolder("mnt")
      let process = try startInFront([], try image(in: folder), mountPoint)
      let descriptor = unsafe open(mountPoint + "/disk.raw", O_RDONLY | O_CLOEXEC)
      #expect(descriptor >= 0)
      process.signal(SIGTERM)
      #expect(process.wait(timeout: 10).status == 0)
      close(descriptor)
      #expect(MountedImage.waits { !MountedImage.isMounted(mountPoint) })
    }
  }

  @Test func endsWhenSomebodyElseUnmounts() throws {
    try TemporaryFolder.with { folder in
      let mountPoint = try folder.makeFolder("mnt")
      let process = try startInFront([], try image(in: folder), mountPoint)
      try TestProcess.run(["/bin/umount", mountPoint]).expecting(0)
      let result = process.wait(timeout: 10)
      #expect(result.status == 0 && result.stderrText == "")
    }
  }

  @Test func leavesNoMountWhereItDoesNotBegin() throws {
    try TemporaryFolder.with { folder in
      let mountPoint = try folder.makeFolder("mnt")
      let result = try BuiltProduct.imgfs.run(
        ["--pid-file", folder.file("none/pid"), try image(in: folder), mountPoint])
      #expect(result.status == 1 && result.stderrText.contains("none/pid"))
      #expect(!MountedImage.isMounted(mountPoint))
    }
  }

  /// A name that others may have put there leads nowhere; a file of before is replaced; what has the name in the end is looked at.
  @Test func pidFileFollowsNothing() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      let mountPoint = try folder.makeFolder("mnt")
      let victim = try folder.write(Array("precious".utf8), to: "victim")
      let pid = folder.file("pid")
      func mount() throws -> ProcessResult {
        try BuiltProduct.imgfs.run(["--pid-file", pid, image, mountPoint])
      }
      try FileManager.default.createSymbolicLink(atPath: pid, withDestinationPath: victim)
      let refused = try mount()
      #expect(refused.status == 1 && refused.stderrText.contains("is no file"))
      #expect(!MountedImage.isMounted(mountPoint))
      #expect(try Files.read(victim) == Array("precious".utf8))
      try FileManager.default.removeItem(atPath: pid)
      // Another name of the file of before keeps its bytes.
      try FileManager.default.linkItem(atPath: victim, toPath: pid)
      try mount().expecting(0)
      #expect(try Files.read(victim) == Array("precious".utf8))
      #expect(try folder.names().filter { $0.hasPrefix("pid") } == ["pid"])
      try FileManager.default.removeItem(atPath: pid)
      try FileManager.default.linkItem(atPath: victim, toPath: pid)
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      #expect(Files.exists(pid))
    }
  }

  @Test func staysMountedWhileItCannotWrite() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      let failing =
        "driver=raw,file.driver=blkdebug,file.image.filename=\(image),file.inject-error.0.event=none,"
        + "file.inject-error.0.iotype=flush,file.inject-error.0.once=on"
      let mountPoint = try folder.makeFolder("mnt")
      try BuiltProduct.imgfs.run(["-o", "rw", "--image-opts", failing, mountPoint]).expecting(0)
      let disk = try FileHandle(forUpdating: URL(fileURLWithPath: mountPoint + "/disk.raw"))
      try disk.seek(toOffset: 4096)
      try disk.write(contentsOf: [9, 9, 9] as [UInt8])
      try disk.close()
      let result = try BuiltProduct.imgfs.run(["--unmount", mountPoint])
      #expect(result.status == 1)
      #expect(
        result.stderrText == "imgfs: '\(mountPoint)' stays mounted, since not all of it could be written "
          + "(umount and fusermount3 -u do not care): Input/output error\n")
      #expect(MountedImage.isMounted(mountPoint))
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      #expect(!MountedImage.isMounted(mountPoint))
      #expect(try Files.read(image)[4096..<4100] == [9, 9, 9, 3])
    }
  }

  @Test func waitsForTheProcessWhenItUnmounts() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      for _ in 0..<10 {
        try MountedImage.with(image, in: folder) { mount in
          try BuiltProduct.imgfs.run(["--unmount", mount.path]).expecting(0)
          #expect(!MountedImage.isRunning(mount.process))
          #expect(!MountedImage.isMounted(mount.path))
        }
      }
    }
  }

  @Test func doesNotUnmountWhatIsInUse() throws {
    try TemporaryFolder.with { folder in
      try MountedImage.with(try image(in: folder), in: folder) { mount in
        let descriptor = unsafe open(mount.file("disk.raw"), O_RDONLY | O_CLOEXEC)
        let result = try BuiltProduct.imgfs.run(["--unmount", mount.path])
        #expect(result.status == 1)
        #expect(result.stderrText == "imgfs: Could not unmount '\(mount.path)': Device or resource busy\n")
        close(descriptor)
        #expect(MountedImage.isMounted(mount.path))
      }
    }
  }

  @Test func unmountsWhatAKilledProcessLeft() throws {
    try TemporaryFolder.with { folder in
      let mountPoint = try folder.makeFolder("mnt")
      let image = try image(in: folder)
      let process = try startInFront([], image, mountPoint)
      process.signal(SIGKILL)
      #expect(process.wait(timeout: 10).status == 128 + Int(SIGKILL))
      let refused = try BuiltProduct.imgfs.run([image, mountPoint])
      #expect(refused.status == 1 && refused.stderrText.contains("imgfs --unmount frees it"))
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      #expect(!MountedImage.isMounted(mountPoint))
    }
  }

  @Test func unmountsOnlyItsOwn() throws {
    try TemporaryFolder.with { folder in
      for place in [folder.path, "/proc"] {
        let result = try BuiltProduct.imgfs.run(["--unmount", place])
        #expect(result.status == 1)
        #expect(result.stderrText == "imgfs: '\(place)' is not a mount point of imgfs\n")
      }
      let missing = folder.file("missing")
      let result = try BuiltProduct.imgfs.run(["--unmount", missing])
      #expect(result.status == 1 && result.stderrText.contains("No such file or directory"))
    }
  }

  @Test(arguments: [
    "nosuid,nodev,noexec,noatime,sync,dirsync", "exec,atime,async", "auto_unmount", "fsname=other\\,name",
    "ro,defaults,relatime,nodiratime,nofail,_netdev,x-systemd.automount",
  ])
  func takesTheMountOptionsThatItNames(_ list: String) throws {
    try TemporaryFolder.with { folder in
      try MountedImage.with(try image(in: folder), options: ["-o", list], in: folder) { mount in
        #expect(Files.exists(mount.file("disk.raw")))
      }
    }
  }

  @Test func isShownWithItsImage() throws {
    try TemporaryFolder.with { folder in
      let image = try folder.write([UInt8](repeating: 0, count: 4096), to: "name, with comma.raw")
      try MountedImage.with(image, in: folder) { mount in
        let table = String(decoding: try Files.read("/proc/self/mountinfo"), as: UTF8.self)
        let line = table.split(separator: "\n").first { $0.contains(" \(mount.path) ") }
        #expect(line?.contains("- fuse.imgfs \(image.replacing(" ", with: "\\040")) ro,") == true)
      }
    }
  }

  @Test func pidFileThatCannotBeWrittenIsAnError() throws {
    try TemporaryFolder.with { folder in
      _ = try image(in: folder)
      try Shell.run("mkdir mnt; echo old >pid", in: folder)
      let script = """
        (ulimit -f 0; "$imgfs" --pid-file pid disk.raw mnt 2>&1 || echo "status $?") | cat
        """
      let output = try Shell.run(script, ["imgfs": try BuiltProduct.imgfs.path], in: folder)
      defer { _ = try? Shell.run("umount --lazy mnt", in: folder) }
      #expect(output.hasPrefix("imgfs: Could not write '\(folder.file("pid"))': "), "\(output)")
      #expect(output.hasSuffix("status 1\n"))
      #expect(!MountedImage.isMounted(folder.file("mnt")))
      #expect(try Files.read(folder.file("pid")) == Array("old\n".utf8))
      #expect(try folder.names() == ["disk.raw", "mnt", "pid"])
    }
  }

  /// Names that are the same to a reader, but not to the kernel.
  @Test func tellsMountPointsApartByTheirBytes() throws {
    try TemporaryFolder.with { folder in
      let image = try image(in: folder)
      let points = try ["\u{E9}", "e\u{301}"].map { try folder.makeFolder($0) }
      #expect(try folder.names().count == 3)
      let servers = try points.map { try startInFront([], image, $0) }
      servers[0].signal(SIGTERM)
      let result = servers[0].wait(timeout: 10)
      #expect(result.status == 0 && result.stderrText == "")
      let left = try Shell.run("grep -c \"$PWD/\" /proc/self/mountinfo", in: folder)
      #expect(left == "1\n")
      servers[1].signal(SIGTERM)
      #expect(servers[1].wait(timeout: 10).status == 0)
      _ = try? Shell.run("umount --lazy \"$PWD\"/*", in: folder)
    }
  }

  /// A comma that a combining mark follows is a comma to libfuse.
  @Test func namesMayHaveACommaAndAMark() throws {
    try TemporaryFolder.with { folder in
      let image = try folder.write([UInt8](repeating: 0, count: 4096), to: "x,\u{301}debug.raw")
      try MountedImage.with(image, in: folder) { mount in
        let table = String(decoding: try Files.read("/proc/self/mountinfo"), as: UTF8.self)
        #expect(
          table.utf8.split(separator: UInt8(ascii: "\n")).contains { line in
            let text = String(decoding: Array(line), as: UTF8.self)
            return text.utf8.count > 0 && text.contains(mount.path)
              && text.contains("- fuse.imgfs \(image) ro,")
          })
      }
    }
  }

  /// umount(8) with --force cuts the connection off, and leaves the mount where a file is open.
  @Test(.enabled(if: geteuid() == 0)) func takesAwayAMountThatWasCutOff() throws {
    try TemporaryFolder.with { folder in
      let mountPoint = try folder.makeFolder("mnt")
      let process = try startInFront([], try image(in: folder), mountPoint)
      let descriptor = unsafe open(mountPoint + "/disk.raw", O_RDONLY | O_CLOEXEC)
      #expect(descriptor >= 0)
      _ = try TestProcess.run(["/bin/umount", "--force", mountPoint])
      _ = process.wait(timeout: 10)
      close(descriptor)
      #expect(!MountedImage.isMounted(mountPoint))
      if MountedImage.isMounted(mountPoint) {
        _ = try TestProcess.run(["/bin/umount", "--lazy", mountPoint])
      }
    }
  }
}
