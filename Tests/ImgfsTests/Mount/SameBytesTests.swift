import Foundation
import Glibc
import TestSupport
import Testing

/// Files of a mount that show the same bytes: the disk, its partitions, its top layer.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct SameBytesTests {
  /// A disk with two partitions, mounted to be written.
  private func withPartitions(options: [String] = [], _ body: (MountedImage) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      try ReferenceTool.create(image, format: "qcow2", size: 16 << 20)
      try MountedImage.with(image, options: ["-o", "rw"] + options, in: folder) { mount in
        let script = "label: dos\nstart=2048, size=8192\nstart=10240, size=8192\n"
        let table = try folder.write(Array(script.utf8), to: "table")
        try TestProcess.run([
          "/bin/sh", "-c", "/sbin/sfdisk --quiet --no-reread --no-tell-kernel \"$0\" < \"$1\"",
          mount.file("disk.raw"), table,
        ]).expecting(0)
        try body(mount)
      }
      #expect(try ReferenceTool.check(image).isClean)
    }
  }

  private func open(_ path: String, _ flags: CInt) -> CInt { unsafe Glibc.open(path, flags | O_CLOEXEC) }

  private func write(_ value: UInt8, _ count: Int, to file: CInt, at offset: Int) throws {
    let bytes = [UInt8](repeating: value, count: count)
    guard unsafe pwrite(file, bytes, count, off_t(offset)) == count, fsync(file) == 0 else {
      throw TestFailure("Writing failed: \(errno)")
    }
  }

  private func read(_ count: Int, of file: CInt, at offset: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 99, count: count)
    return unsafe pread(file, &bytes, count, off_t(offset)) == count ? bytes : []
  }

  @Test func areWrittenThroughOneFileAtATime() throws {
    try withPartitions { mount in
      let partition = open(mount.file("partitions/1.raw"), O_RDWR)
      #expect(partition >= 0)
      #expect(open(mount.file("disk.raw"), O_RDWR) == -1 && errno == EBUSY)
      // Whoever only reads may; so may those who write other bytes, or the same file.
      for (name, flags) in [
        ("disk.raw", O_RDONLY), ("partitions/2.raw", O_RDWR), ("partitions/1.raw", O_RDWR),
      ] {
        let other = open(mount.file(name), flags)
        #expect(other >= 0)
        close(other)
      }
      close(partition)
      // At once: the kernel tells of the closing a moment later.
      let disk = open(mount.file("disk.raw"), O_RDWR)
      #expect(disk >= 0)
      #expect(open(mount.file("partitions/2.raw"), O_WRONLY) == -1 && errno == EBUSY)
      close(disk)
    }
  }

  /// The kernel keeps pages of the disk, and writes them back whole.
  @Test(arguments: [[], ["-s"]]) func loseNothingThroughEachOther(_ options: [String]) throws {
    try withPartitions(options: options) { mount in
      let start = 2048 * 512
      for round in 1...5 {
        // A page of the disk is in the kernel's cache, and stays there while somebody has the file open.
        let looking = open(mount.file("disk.raw"), O_RDONLY)
        #expect(read(4096, of: looking, at: start).count == 4096)
        let partition = open(mount.file("partitions/1.raw"), O_RDWR)
        try write(UInt8(round), 4096, to: partition, at: 0)
        close(partition)
        let disk = open(mount.file("disk.raw"), O_RDWR)
        #expect(disk >= 0)
        #expect(read(4096, of: disk, at: start) == [UInt8](repeating: UInt8(round), count: 4096))
        try write(200, 512, to: disk, at: start + 512)
        close(disk)
        close(looking)
        let again = open(mount.file("partitions/1.raw"), O_RDONLY)
        let value = UInt8(round)
        #expect(
          read(4096, of: again, at: 0) == [UInt8](repeating: value, count: 512)
            + [UInt8](repeating: 200, count: 512) + [UInt8](repeating: value, count: 3072))
        close(again)
      }
    }
  }

  /// What was written through a partition is a change of the disk, too.
  @Test func showWhenTheyWereChanged() throws {
    try withPartitions { mount in
      func time(_ name: String) throws -> Double {
        let text = try TestProcess.run(["/usr/bin/stat", "--format", "%.Y", mount.file(name)]).expecting(0)
          .stdoutText
        return Double(text.split(separator: "\n")[0]) ?? 0
      }
      try TestProcess.run(["/usr/bin/touch", "--date", "2001-02-03 04:05:06", mount.file("disk.raw")])
        .expecting(0)
      #expect(try time("disk.raw") < 1_000_000_000)
      let partition = open(mount.file("partitions/1.raw"), O_RDWR)
      try write(1, 4096, to: partition, at: 0)
      close(partition)
      // The kernel forgets what it knows of the file.
      try TestProcess.run(["/bin/sh", "-c", "echo 2 >/proc/sys/vm/drop_caches"]).expecting(0)
      #expect(try time("disk.raw") > 1_700_000_000)
    }
  }

  /// Each entry once, though others go meanwhile.
  @Test func listSnapshotsThatAreBeingDeleted() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      try ReferenceTool.create(image, format: "qcow2", size: 1 << 20, options: ["cluster_size=512"])
      try MountedImage.with(image, options: ["-o", "rw"], in: folder) { mount in
        for number in 0..<150 {
          try FileManager.default.createDirectory(
            atPath: mount.file("snapshots/a snapshot with quite a long name \(number)"),
            withIntermediateDirectories: false)
        }
        let script = "import os, sys\nfor entry in os.scandir(sys.argv[1]): os.rmdir(entry.path)\n"
        try TestProcess.run(["/usr/bin/python3", "-c", script, mount.file("snapshots")]).expecting(0)
        #expect(try FileManager.default.contentsOfDirectory(atPath: mount.file("snapshots")).isEmpty)
      }
      #expect(try ReferenceTool.check(image).isClean)
    }
  }

  /// An image may have many of one name; each has a folder of its own.
  @Test func deleteTheSnapshotThatTheFolderShows() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      try ReferenceTool.create(image, format: "qcow2", size: 1 << 20)
      for number in 1...3 {
        try ReferenceTool.io(["write -P \(number) 0 64k"], on: image, format: "qcow2")
        try ReferenceTool.qemuImg("snapshot", "-c", "same", image)
      }
      func expect(_ wanted: [String: UInt8], _ mount: MountedImage) throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: mount.file("snapshots"))
        let shown: [String: UInt8] = try names.reduce(into: [:]) {
          $0[$1] = try Files.read(mount.file("snapshots/\($1)/disk.raw")).first
        }
        #expect(shown == wanted)
      }
      try MountedImage.with(image, options: ["-o", "rw"], in: folder) { mount in
        try expect(["same": 1, "same~2": 2, "same~3": 3], mount)
        #expect(unsafe rmdir(mount.file("snapshots/same~2")) == 0)
        try expect(["same": 1, "same~2": 3], mount)
        #expect(unsafe rmdir(mount.file("snapshots/same")) == 0)
        try expect(["same": 3], mount)
      }
      #expect(try ReferenceTool.check(image).isClean)
      try ReferenceTool.qemuImg("convert", "-l", "snapshot.id=3", "-O", "raw", image, folder.file("3.raw"))
      #expect(try Files.read(folder.file("3.raw")).first == 3)
    }
  }
}
