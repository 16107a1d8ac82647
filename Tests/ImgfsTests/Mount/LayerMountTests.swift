import Foundation
import TestSupport
import Testing

/// The folders of the files that an image consists of.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct LayerMountTests {
  private func chain(_ folder: TemporaryFolder) throws -> String {
    try ReferenceTool.create("base.qcow2", format: "qcow2", size: 4 << 20, folder: folder.path)
    try ReferenceTool.io(["write -P 1 0 1M"], on: "base.qcow2", format: "qcow2", folder: folder.path)
    for (top, base) in [("middle.qcow2", "base.qcow2"), ("top.qcow2", "middle.qcow2")] {
      try ReferenceTool.create(
        top, format: "qcow2", size: 4 << 20, over: (base, "qcow2"), folder: folder.path)
    }
    try ReferenceTool.io(["write -P 2 512k 1M"], on: "middle.qcow2", format: "qcow2", folder: folder.path)
    try ReferenceTool.io(["write -P 3 64k 64k"], on: "top.qcow2", format: "qcow2", folder: folder.path)
    return folder.file("top.qcow2")
  }

  private func runs(of path: String) throws -> [[Int]] {
    let script = """
      import os, sys
      f = os.open(sys.argv[1], os.O_RDONLY)
      at, end = 0, os.fstat(f).st_size
      while at < end:
          try: at = os.lseek(f, at, os.SEEK_DATA)
          except OSError: break
          stop = os.lseek(f, at, os.SEEK_HOLE)
          print(at, stop - at)
          at = stop
      """
    let result = try TestProcess.run(["/usr/bin/python3", "-c", script, path]).expecting(0)
    return result.stdoutText.split(separator: "\n").map { $0.split(separator: " ").compactMap { Int($0) } }
  }

  @Test func showWhatEachFileStores() throws {
    try TemporaryFolder.with { folder in
      let KiB = 1024
      try MountedImage.with(try chain(folder), in: folder) { mount in
        #expect(try runs(of: mount.file("layers/0-top.qcow2/delta.raw")) == [[64 * KiB, 64 * KiB]])
        #expect(try runs(of: mount.file("layers/1-middle.qcow2/delta.raw")) == [[512 * KiB, 1024 * KiB]])
        #expect(try runs(of: mount.file("layers/2-base.qcow2/delta.raw")) == [[0, 1024 * KiB]])
        try ReferenceTool.io(
          ["read -P 0 0 512k", "read -P 2 512k 1M", "read -P 0 1536k 2M"],
          on: mount.file("layers/1-middle.qcow2/delta.raw"), format: "raw", isReadOnly: true)
        try ReferenceTool.io(
          ["read -P 1 0 512k", "read -P 2 512k 1M"], on: mount.file("layers/1-middle.qcow2/disk.raw"),
          format: "raw", isReadOnly: true)
        let size = try TestProcess.run([
          "/usr/bin/du", "-k", mount.file("layers/0-top.qcow2/delta.raw"),
        ]).expecting(0).stdoutText
        #expect(size.hasPrefix("64\t"))
      }
    }
  }

  @Test func tellWhichFileIsMissing() throws {
    try TemporaryFolder.with { folder in
      let top = try chain(folder)
      try FileManager.default.removeItem(atPath: folder.file("base.qcow2"))
      try MountedImage.with(top, in: folder) { mount in
        let layers = try FileManager.default.contentsOfDirectory(atPath: mount.file("layers")).sorted()
        #expect(layers == ["0-top.qcow2", "1-middle.qcow2", "2-base.qcow2"])
        let words = String(
          decoding: try Files.read(mount.file("layers/2-base.qcow2/error.txt")), as: UTF8.self)
        #expect(words.contains("'\(folder.file("base.qcow2"))': No such file or directory"))
        // What is there reads, what is not fails: never as zeros.
        let disk = mount.file("disk.raw")
        try ReferenceTool.io(
          ["read -P 3 64k 64k", "read -P 2 512k 1M"], on: disk, format: "raw", isReadOnly: true)
        let handle = try #require(FileHandle(forReadingAtPath: disk))
        #expect(throws: (any Error).self) { try handle.read(upToCount: 512) }
        try handle.close()
        try ReferenceTool.io(
          ["read -P 0 0 64k", "read -P 3 64k 64k"], on: mount.file("layers/0-top.qcow2/delta.raw"),
          format: "raw", isReadOnly: true)
      }
      // Asked for with `rw`, as mount(8) does wherever nobody says `ro`, it is there to be read.
      let mountPoint = try folder.makeFolder("mnt")
      let rw = try BuiltProduct.imgfs.run(["-o", "rw", top, mountPoint]).expecting(0)
      #expect(rw.stderrText.contains("'\(top)' is mounted read-only: "))
      #expect(FileHandle(forWritingAtPath: mountPoint + "/disk.raw") == nil)
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      // Whole clusters can be written over what is missing; nothing else can.
      try MountedImage.with(top, options: ["--overlay", "tmp"], in: folder) { mount in
        let disk = mount.file("disk.raw")
        try ReferenceTool.io(["write -P 6 0 64k", "read -P 6 0 64k"], on: disk, format: "raw")
        #expect(throws: (any Error).self) {
          try ReferenceTool.io(["write -P 6 200k 4k", "flush"], on: disk, format: "raw")
        }
      }
    }
  }
}
