import TestSupport
import Testing

/// A mount keeps others from changing what it shows, and shows nothing that others change.
@Suite(.enabled(if: MountedImage.isPossible), .serialized)
struct MountLockTests {
  private func withImages(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create("disk.q", format: "qcow2", size: 1 << 20, folder: folder.path)
      try ReferenceTool.create("disk.raw", format: "raw", size: 1 << 20, folder: folder.path)
      try ReferenceTool.create(
        "top.q", format: "qcow2", size: 1 << 20, over: ("disk.raw", "raw"), folder: folder.path)
      try body(folder)
    }
  }

  @Test(arguments: [
    ("disk.q", "qcow2", "disk.q"), ("disk.raw", "raw", "disk.raw"), ("top.q", "raw", "disk.raw"),
  ])
  func mountedImagesAreOnlyRead(_ mounted: String, _ format: String, _ file: String) throws {
    try withImages { folder in
      let write = ["-c", "write 0 512", "-f", format, folder.file(file)]
      let refusal =
        "qemu-io: can't open device \(folder.file(file)): Failed to get \"write\" lock\n"
        + "Is another process using the image [\(folder.file(file))]?\n"
      try MountedImage.with(
        folder.file(mounted), options: ["--format", mounted.hasSuffix("q") ? "qcow2" : "raw"], in: folder
      ) { _ in
        #expect(try ReferenceTool.qemuIO.run(write).stderrText == refusal)
        try ReferenceTool.qemuIO.run(["-r", "-c", "read 0 512", "-f", format, folder.file(file)]).expecting(0)
        // Two mounts of one image are two readers.
        try MountedImage.with(
          folder.file(mounted), options: ["--format", mounted.hasSuffix("q") ? "qcow2" : "raw"], in: folder
        ) { _ in }
      }
      #expect(try ReferenceTool.qemuIO.run(write).stderrText == "")
    }
  }

  @Test(arguments: ["disk.q", "disk.raw", "top.q"])
  func imagesThatAreWrittenAreNotMounted(_ name: String) throws {
    try withImages { folder in
      let node =
        name == "disk.q"
        ? "qcow2,file.driver=file,file.filename=disk.q"
        : Holder.file("disk.raw", taking: ["write"], withholding: ["write"])
      try Holder.with(node, in: folder.path) {
        let mountPoint = try folder.makeFolder("mnt")
        let result = try BuiltProduct.imgfs.run(
          ["--format", name.hasSuffix("q") ? "qcow2" : "raw", folder.file(name), mountPoint])
        let file = name == "top.q" ? folder.file("disk.raw") : folder.file(name)
        #expect(result.status != 0)
        #expect(
          result.stderrText.hasSuffix(
            "Failed to get shared \"write\" lock\nIs another process using the image [\(file)]?\n"
              + "A running machine may be writing to it. --force-share mounts it all the same, read-only, and what is"
              + " seen then may be stale or not fit together.\n"),
          "\(result.stderrText)")
        #expect(!MountedImage.isMounted(mountPoint))
      }
    }
  }
}
