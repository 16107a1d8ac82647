import Foundation
import TestSupport
import Testing

/// mount(8), /etc/fstab and umount(8), as the system has them. Each script runs in mounts of its own, in which imgfs and
/// mount.imgfs are where they would be installed.
@Suite(.enabled(if: MountedImage.canLoopMount && Files.exists("/sbin/mount.fuse3")), .serialized)
struct MountCommandTests {
  /// What the kernel shows of the mount.
  private static let showMount = "grep \" $PWD/mnt \" /proc/self/mounts || echo nothing\n"

  private func run(_ script: String, in folder: TemporaryFolder) throws -> ProcessResult {
    let imgfs = try BuiltProduct.imgfs.path
    // mount(8) asks the helper's folder, not PATH; and mount.fuse3 has a PATH of its own.
    let preparation = """
      set -e
      mkdir sbin bin mnt
      cp /sbin/mount.fuse3 sbin/mount.fuse
      ln -s \(imgfs) sbin/mount.imgfs
      ln -s \(imgfs) bin/imgfs
      mount --bind sbin "$(readlink -f /sbin)"
      mount --bind bin /usr/local/bin
      set +e

      """
    return try TestProcess.run(
      ["/usr/bin/unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", preparation + script],
      folder: folder.path)
  }

  private func withDisk(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create("disk.q", format: "qcow2", size: 1 << 20, folder: folder.path)
      try ReferenceTool.io(["write -P 7 0 1M"], on: "disk.q", format: "qcow2", folder: folder.path)
      try body(folder)
    }
  }

  /// Both types, by the command line and by a line of fstab.
  @Test(arguments: ["fuse.imgfs", "imgfs"], [false, true])
  func mountsByTypeAndByTable(_ type: String, _ usesTable: Bool) throws {
    try withDisk { folder in
      let options = "ro,nofail,_netdev,x-gvfs-hide,nosuid,nodev,noexec,noatime,format=qcow2,umask=022,uid=7"
      let line = "\(folder.file("disk.q")) \(folder.file("mnt")) \(type) \(options) 0 0\n"
      _ = try folder.write(Array(line.utf8), to: "fstab")
      let mount =
        usesTable ? "mount --fstab fstab \"$PWD/mnt\"" : "mount -t \(type) -o \(options) \"$PWD/disk.q\" mnt"
      let result = try run(
        "\(mount) || echo failed\n" + Self.showMount
          + "stat -c '%a %u %s' mnt/disk.raw\nwrong=$(tr -d '\\007' <mnt/disk.raw | wc -c); echo $wrong\n"
          + "umount mnt || echo busy\n" + Self.showMount, in: folder)
      let shown =
        "\(folder.file("disk.q")) \(folder.file("mnt")) fuse.imgfs"
        + " ro,nosuid,nodev,noexec,noatime,user_id=0,group_id=0,default_permissions 0 0\n"
      #expect(result.stdoutText == shown + "444 7 1048576\n0\nnothing\n")
      #expect(result.stderrText == "")
    }
  }

  @Test func mountsAWholeTableOnce() throws {
    try withDisk { folder in
      let lines = """
        \(folder.file("disk.q")) \(folder.file("mnt")) imgfs ro 0 0
        \(folder.file("disk.q")) \(folder.file("mnt2")) fuse.imgfs ro,users,noauto 0 0
        \(folder.file("missing.q")) \(folder.file("mnt2")) imgfs ro,nofail 0 0

        """
      _ = try folder.write(Array(lines.utf8), to: "fstab")
      let result = try run(
        "mkdir mnt2\nmount -a --fstab fstab; mount -a --fstab fstab\ngrep -c \"$PWD/mnt\" /proc/self/mounts\numount mnt\n",
        in: folder)
      #expect(result.stdoutText == "1\n")
      // nofail is for mount(8), which says no more than that it goes on.
      #expect(result.stderrText.contains("Could not open '\(folder.file("missing.q"))': No such file"))
    }
  }

  /// Without `ro` mount(8) asks for `rw`.
  @Test(arguments: ["imgfs", "fuse.imgfs"]) func mountsToWriteWhereNothingElseIsSaid(_ type: String) throws {
    try withDisk { folder in
      let result = try run(
        "mount -t \(type) \"$PWD/disk.q\" mnt && " + Self.showMount
          + "printf abc | dd of=mnt/disk.raw conv=notrunc status=none\nbin/imgfs --unmount mnt\n", in: folder)
      #expect(result.stdoutText.contains(" rw,"), "\(result.stderrText)")
      let content = try ReferenceTool.content(of: folder.file("disk.q"), format: "qcow2", in: folder)
      #expect(content.prefix(4) == [0x61, 0x62, 0x63, 7])
    }
  }

  @Test func saysThatItCannotBeWritten() throws {
    try withDisk { folder in
      let result = try run(
        "mount -o remount,ro,bind / 2>/dev/null; mount --bind -o ro . .; cd \"$PWD\"\n"
          + "mount --bind disk.q disk.q && mount -o remount,bind,ro disk.q\n"
          + "bin/imgfs -o rw disk.q mnt\n" + Self.showMount + "bin/imgfs --unmount mnt\n", in: folder)
      #expect(
        result.stderrText
          == "imgfs: warning: 'disk.q' is mounted read-only: Could not open 'disk.q': Read-only file system\n"
      )
      #expect(result.stdoutText.contains(" ro,"))
    }
  }

  @Test(arguments: [
    ("-f", 0, ""), ("-o ro,nosuch", 1, "Unknown mount option 'nosuch'"), ("-o ro,snapshot=x", 32, "snapshot"),
    ("-s -f -o ro,nosuch", 0, ""), ("-f -o ro,format=vmdk", 32, "Could not open"),
    ("-n -v -f -o ro", 0, ""), ("-f -N /proc/self/ns/mnt -o ro", 0, ""),
    ("-f -N /proc/self/ns/net", 32, "namespace"),
    ("-f -Q", 1, "unrecognized option '-Q'"),
  ])
  func theHelperAnswersAsMountWants(_ words: String, _ status: Int, _ sentence: String) throws {
    try withDisk { folder in
      let result = try run("exec sbin/mount.imgfs disk.q mnt \(words)\n", in: folder)
      #expect(result.status == status, "\(result.stderrText)")
      #expect(sentence.isEmpty ? result.stderrText.isEmpty : result.stderrText.contains(sentence))
    }
  }

  /// The mount appears in the namespace that is named, and not in that of the caller.
  @Test func mountsInAnotherNamespace() throws {
    try withDisk { folder in
      let result = try run(
        """
        unshare --mount --propagation private sh -c 'echo $$ >pid; exec sleep 30' &
        while [ ! -s pid ]; do sleep 0.02; done
        sbin/mount.imgfs "$PWD/disk.q" "$PWD/mnt" -N /proc/$(cat pid)/ns/mnt -o ro || echo failed
        grep -c "$PWD/mnt" /proc/self/mounts
        grep -c "$PWD/mnt" /proc/$(cat pid)/mounts
        nsenter --mount=/proc/$(cat pid)/ns/mnt umount "$PWD/mnt"
        kill $(cat pid)

        """, in: folder)
      #expect(result.stdoutText == "0\n1\n", "\(result.stderrText)")
    }
  }

  /// Names that are relative to the current folder mean nothing where that is not there.
  @Test func refusesANamespaceWithoutTheCurrentFolder() throws {
    try TemporaryFolder.with { folder in
      try Shell.run(
        "mkdir hidden hidden/here; truncate -s 64k hidden/here/disk.raw; mkdir hidden/here/mnt", in: folder)
      let other = try TestProcess([
        "/usr/bin/unshare", "--mount", "/bin/sh", "-c",
        "mount -t tmpfs none \"$1\"; echo; exec sleep 60", "sh", folder.file("hidden"),
      ])
      defer { other.signal(SIGKILL) }
      #expect(MountedImage.waits { !other.stdoutSoFar.isEmpty })
      try Shell.run("ln -s '\(try BuiltProduct.imgfs.path)' mount.imgfs", in: folder)
      let result = try TestProcess.run(
        [folder.file("mount.imgfs"), "disk.raw", "mnt", "-N", "/proc/\(other.pid)/ns/mnt"],
        folder: folder.file("hidden/here"))
      #expect(result.status == 32)
      #expect(
        result.stderrText.contains("Could not enter the folder '\(folder.file("hidden/here"))'"),
        "\(result.stderrText)")
    }
  }
}
