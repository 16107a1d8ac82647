import Foundation
import TestSupport
import Testing

/// Trouble below the image reaches whoever writes, and harms nothing.
@Suite(.enabled(if: MountedImage.isPossible && getuid() == 0), .serialized) struct WriteErrorTests {
  /// A file system of the host that is full, and has room again.
  @Test(arguments: Effort.current == .soak ? WritableImage.all + WritableImage.kinds : WritableImage.all)
  func fullHostIsAnErrorAndNoDamage(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let place = try folder.makeFolder("full")
      try Shell.run("mount -t tmpfs -o size=12m none full", in: folder)
      defer { _ = try? Shell.run("umount full || umount --lazy full", in: folder) }
      // Formats that take all of their room when they are made do not fit.
      guard let image = try? kind.make(64 << 20, in: TemporaryFolder(at: place)) else { return }
      try kind.mounted(image, in: folder) { mount in
        let output = try Shell.run(
          """
          head -c 4M /dev/urandom >first
          head -c 20M /dev/urandom >source
          dd if=first of="$disk" bs=1M conv=notrunc,fsync status=none
          dd if=source of="$disk" bs=1M seek=10 conv=notrunc,fsync status=none || echo fsync
          dd if=source of="$disk" bs=1M seek=40 conv=notrunc oflag=direct status=none || echo direct
          cmp -n 4194304 first "$disk"
          mount -o remount,size=100m full
          dd if=source of="$disk" bs=1M seek=10 conv=notrunc,fsync status=none
          cmp -n 4194304 first "$disk"
          cmp source <(dd if="$disk" bs=1M skip=10 count=20 status=none)
          """, ["disk": mount.file("disk.raw")], in: folder)
        #expect(output.contains("No space left on device\nfsync\n"))
        #expect(output.contains("No space left on device\ndirect\n"))
      }
      let raw = try kind.judged(image, in: folder)
      try Shell.run(
        "cmp -n 4194304 first \"$raw\"; cmp source <(dd if=\"$raw\" bs=1M skip=10 count=20 status=none)",
        ["raw": raw], in: folder)
    }
  }

  /// The judge shows the image's file through a mount of its own, and fails a write of one sector there.
  @Test(arguments: WritableImage.chosen) func errorsBelowReachTheWriter(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(64 << 20, in: folder)
      // What is written in place meets the bad sector each time; new room is elsewhere.
      try ReferenceTool.io(["write -P 5 0 24M"], on: image, format: kind.format)
      try folder.write(
        Array(
          "[inject-error]\nevent = \"none\"\niotype = \"write\"\nerrno = \"5\"\nsector = \"30720\"\n"
            .utf8),
        to: "rules")
      let shown = try folder.write([], to: "shown")
      let daemon = try TestProcess([
        ReferenceTool.storageDaemon.path, "--blockdev", "driver=file,node-name=file,filename=\(image)",
        "--blockdev", "driver=blkdebug,node-name=rules,config=\(folder.file("rules")),image=file",
        "--export", "type=fuse,id=shown,node-name=rules,mountpoint=\(shown),writable=on,growable=on",
      ])
      #expect(MountedImage.waits(until: { MountedImage.isMounted(shown) }))
      defer { if daemon.isRunning { daemon.signal(SIGTERM) } }
      try MountedImage.with(shown, options: ["-F", kind.format, "-o", "rw"], in: folder) { mount in
        let output = try Shell.run(
          """
          head -c 20M /dev/urandom >source
          dd if=source of="$disk" bs=64k conv=notrunc,fsync status=none || echo refused
          dd if=source of="$disk" bs=64k conv=notrunc oflag=direct status=none || echo refused
          dd if=source of="$disk" bs=64k seek=400 conv=notrunc,fsync status=none && echo "goes on"
          cmp source <(dd if="$disk" bs=64k skip=400 count=320 status=none)
          """, ["disk": mount.file("disk.raw")], in: folder)
        #expect(output.contains("Input/output error\nrefused\n"), "\(output)")
        #expect(output.contains("goes on\n"), "\(output)")
      }
      daemon.signal(SIGTERM)
      try daemon.wait().expecting(0)
      try kind.expectSound(image)
      let raw = try kind.judged(image, in: folder)
      try Shell.run(
        "cmp source <(dd if=\"$raw\" bs=64k skip=400 count=320 status=none)", ["raw": raw], in: folder)
    }
  }

  /// A limit on the size of files is an error of the write, and not the end of the process that serves.
  @Test func limitOfFileSizesIsAnError() throws {
    try TemporaryFolder.with { folder in
      let kind = WritableImage(format: "qcow2")
      let image = try kind.make(64 << 20, in: folder)
      let mountPoint = try folder.makeFolder("limited")
      defer {
        if MountedImage.isMounted(mountPoint) { _ = try? Shell.run("umount --lazy limited", in: folder) }
      }
      let output = try Shell.run(
        """
        (ulimit -f 8192; exec "$imgfs" -o rw "$image" limited)
        dd if=/dev/urandom of=limited/disk.raw bs=1M count=20 conv=notrunc,fsync status=none || echo refused
        dd if=/dev/urandom of=limited/disk.raw bs=1M count=20 conv=notrunc oflag=direct status=none || echo refused
        "$imgfs" --unmount limited
        """, ["imgfs": try BuiltProduct.imgfs.path, "image": image], in: folder)
      #expect(output.split(separator: "\n").count { $0 == "refused" } == 2)
      #expect(output.contains("File too large"))
      try kind.expectSound(image)
    }
  }
}
