import TestSupport
import Testing

/// `convert -C`: the host copies, and what it does not copy goes by way of memory.
@Suite struct HostCopyTests {
  private func with(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 8)
      try folder.write(random.bytes(3 << 20), to: "a.raw")
      try body(folder)
    }
  }

  /// What the host has copied is brought to disk as what is written.
  @Test func copyIsFlushed() throws {
    try with { folder in
      let result = try BuiltProduct.qemuImg.run(
        ["-T", "store_*", "convert", "-C", "-t", "writeback", "-f", "raw", "-O", "raw", "a.raw", "b.raw"],
        folder: folder.path
      ).expecting()
      let lines = result.stderrText.split(separator: "\n")
      let copy = try #require(lines.lastIndex { $0.hasPrefix("store_copy") })
      #expect(lines[copy...].contains { $0.hasPrefix("store_flush") && $0.contains("b.raw") })
    }
  }

  /// A target that is no file by itself.
  @Test func whatIsNoFileIsWritten() throws {
    try with { folder in
      try folder.write([UInt8](repeating: 1, count: 3 << 20), to: "b.raw")
      try BuiltProduct.qemuImg.run(
        [
          "convert", "-C", "-n", "-f", "raw", "--target-image-opts", "a.raw",
          "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=b.raw",
        ], folder: folder.path
      ).expecting()
      #expect(try Files.read(folder.file("b.raw")) == Files.read(folder.file("a.raw")))
    }
  }
}
