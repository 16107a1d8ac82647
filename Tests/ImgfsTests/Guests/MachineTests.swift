import TestSupport
import Testing

/// The judge's own programs write the mounted disk.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct MachineTests {
  @Test(arguments: Effort.current == .soak ? WritableImage.all + WritableImage.kinds : WritableImage.chosen)
  func judgeConvertsOntoTheDisk(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let source = try GuestImages.scattered("source.raw", byteCount: 24 << 20, seed: 61, in: folder)
      let image = try kind.make(24 << 20, in: folder)
      try ReferenceTool.io(
        ["write -P 9 0 24M"], on: image, format: kind.format, passphrase: kind.passphrase)
      try kind.mounted(image, in: folder) { mount in
        let disk = mount.file("disk.raw")
        try ReferenceTool.qemuImg("convert", "-n", "-t", "none", "-f", "raw", "-O", "raw", source, disk)
        try ReferenceTool.qemuImg("compare", "-f", "raw", "-F", "raw", "-T", "none", source, disk)
        try GuestImages.expectSame(source, disk)
      }
      try GuestImages.expectSame(try kind.judged(image, in: folder), source)
    }
  }

  /// Patterns, zeros and discards of qemu-io, through the page cache and past it.
  @Test(arguments: WritableImage.chosen) func judgeWritesPatterns(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(24 << 20, in: folder)
      let model = try folder.write([], to: "model.raw")
      try ReferenceTool.qemuImg("create", "-f", "raw", model, "24M")
      try kind.mounted(image, in: folder) { mount in
        for (round, cache) in ["none", "writeback", "writethrough", "directsync"].enumerated() {
          let base = round * 5 << 20
          let commands = [
            "write -P 1 \(base) 1M", "write -P 2 \(base + 513 * 512) 3k", "write -z \(base + 70_144) 200k",
            "write -z -u \(base + (512 << 10)) 128k", "discard \(base + (256 << 10)) 64k",
            "aio_write -P 3 \(base + (2 << 20)) 300k", "aio_write -P 4 \(base + (3 << 20)) 300k", "aio_flush",
            "read -P 1 \(base) 4k", "flush",
          ]
          for target in [mount.file("disk.raw"), model] {
            let arguments =
              ["-f", "raw", "-t", cache, "-d", "unmap"] + commands.flatMap { ["-c", $0] } + [target]
            let result = try ReferenceTool.qemuIO.run(arguments).expecting(0)
            #expect(!result.stdoutText.contains("failed"), "\(result.stdoutText)")
          }
        }
        try GuestImages.expectSame(model, mount.file("disk.raw"))
      }
      try GuestImages.expectSame(try kind.judged(image, in: folder), model)
    }
  }
}
