import Foundation
import TestSupport
import Testing

/// What only the kernel has yet of a file that cannot be opened by its name any more.
@Suite(.enabled(if: MountedImage.isPossible && geteuid() == 0), .serialized)
struct LostNameTests {
  /// A writer that keeps its file open - a closing writes out - and starts no child, whose copy of the descriptor would
  /// be closed. It writes, runs `move`, takes a snapshot in `snapshots` or ends the server, and prints whether that went
  /// well.
  private func expect(
    _ printed: String, from disk: String, move: String, snapshots: String? = nil,
    at mountPoint: String = "mount", in folder: TemporaryFolder
  ) throws {
    let last =
      snapshots.map { "os.mkdir(\"\($0)/s\")" }
        ?? """
        os.kill(server, signal.SIGTERM)
        while os.path.exists(f"/proc/{server}/exe"): time.sleep(0.02)
        """
    let script = """
      import ctypes, os, signal, time
      libc = ctypes.CDLL(None, use_errno=True)
      server = int(open("pid").read())
      file = os.open("\(mountPoint)/\(disk)", os.O_RDWR)
      os.pwrite(file, b"written" * 100, 65536)
      \(move)
      try:
          \(last.replacingOccurrences(of: "\n", with: "\n    "))
          print("done")
      except OSError as error:
          print(os.strerror(error.errno))
      """
    let result = try Shell.run("python3 -c \"$script\"", ["script": script], in: folder)
    #expect(result == printed + "\n")
  }

  private func withMount(
    _ image: String, _ options: String = "", at mountPoint: String = "mount", in folder: TemporaryFolder,
    _ body: () throws -> Void
  ) throws {
    defer {
      for path in ["mount", "a/mount", "b/mount"] {
        for _ in 0..<2 where MountedImage.isMounted(folder.file(path)) {
          _ = try? Shell.run("umount --lazy \(path)", in: folder)
        }
      }
    }
    let words = "\"$imgfs\" \(options) -o rw --pid-file pid \"$image\" \(mountPoint)"
    try Shell.run(words, ["imgfs": try BuiltProduct.imgfs.path, "image": image], in: folder)
    try body()
  }

  private func expectWritten(_ raw: String) throws {
    #expect(
      try Files.read(raw)[65536..<65536 + 700] == Array(String(repeating: "written", count: 100).utf8)[...])
  }

  @Test(arguments: [
    "os.rename(\"images/a.raw\", \"images/b.raw\")", "os.rename(\"images/a.raw\", \"b.raw\")",
  ])
  func renamedImageKeepsWhatWasWritten(_ move: String) throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      try Files.write([UInt8](repeating: 1, count: 1 << 20), to: images.file("a.raw"))
      _ = try folder.makeFolder("mount")
      try withMount(images.path, in: folder) {
        // The folder is looked at again after a second.
        let look = "\ntime.sleep(1.2); os.listdir(\"mount\")"
        try expect("done", from: "a.raw/disk.raw", move: move + look, in: folder)
      }
      let moved = move.contains("images/b.raw") ? images.file("b.raw") : folder.file("b.raw")
      try expectWritten(moved)
    }
  }

  @Test func snapshotOfARenamedImageHoldsWhatWasWritten() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", images.file("a.qcow2"), "1M")
      _ = try folder.makeFolder("mount")
      try withMount(images.path, in: folder) {
        let move = "os.rename(\"images/a.qcow2\", \"images/b.qcow2\"); time.sleep(1.2)"
        try expect(
          "done", from: "a.qcow2/disk.raw", move: move, snapshots: "mount/b.qcow2/snapshots", in: folder)
        try Shell.run("cp mount/b.qcow2/snapshots/s/disk.raw s.raw", in: folder)
        try BuiltProduct.imgfs.run(["--unmount", folder.file("mount")]).expecting(0)
      }
      try expectWritten(folder.file("s.raw"))
    }
  }

  @Test func renamedFolderOfTheMountKeepsWhatWasWritten() throws {
    try TemporaryFolder.with { folder in
      let image = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "disk.raw")
      _ = try folder.makeInner("a").makeFolder("mount")
      try withMount(image, "-F raw", at: "a/mount", in: folder) {
        try expect("done", from: "disk.raw", move: "os.rename(\"a\", \"b\")", at: "a/mount", in: folder)
        #expect(!MountedImage.isMounted(folder.file("b/mount")))
      }
      try expectWritten(image)
    }
  }

  /// Nor is what covers the tree taken away.
  @Test func coveredMountKeepsWhatWasWritten() throws {
    try TemporaryFolder.with { folder in
      let image = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "disk.raw")
      _ = try folder.makeFolder("mount")
      try withMount(image, "-F raw", in: folder) {
        let cover = "assert libc.mount(b\"none\", b\"mount\", b\"tmpfs\", 0, None) == 0"
        try expect("done", from: "disk.raw", move: cover, in: folder)
        let table = try Shell.run("findmnt --noheadings --output FSTYPE mount", in: folder)
        #expect(table.contains("tmpfs"), "\(table)")
      }
      try expectWritten(image)
    }
  }

  /// A snapshot is not taken where something that was written before it is lost, whenever that was.
  @Test(arguments: [false, true], [false, true])
  func snapshotWithoutWhatWasWrittenIsNotTaken(_ isRenamed: Bool, _ isLostBefore: Bool) throws {
    try TemporaryFolder.with { folder in
      let base = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "base.raw")
      let images = try folder.makeInner("images")
      try ReferenceTool.qemuImg(
        "create", "-f", "qcow2", "-b", base, "-F", "raw", images.file("a.qcow2"), "1M")
      _ = try folder.makeFolder("mount")
      try withMount(images.path, "-o allow_path=\(folder.path)", in: folder) {
        // A part of a cluster is written, whose rest is not there any more.
        let move =
          "os.truncate(\"base.raw\", 4096)" + (isLostBefore ? "; libc.syncfs(file); time.sleep(0.5)" : "")
        let rename = "; os.rename(\"images/a.qcow2\", \"images/b.qcow2\"); time.sleep(1.2)"
        let place = isRenamed ? "mount/b.qcow2" : "mount/a.qcow2"
        try expect(
          "Input/output error", from: "a.qcow2/disk.raw", move: move + (isRenamed ? rename : ""),
          snapshots: place + "/snapshots",
          in: folder)
        #expect(try Shell.run("ls \(place)/snapshots", in: folder) == "")
      }
    }
  }
}
