import FormatEngine
import Foundation
import TestSupport
import Testing

/// Disks of every format that we make, seen through the kernel.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct FormatMountTests {
  /// Format, options, and whether it takes a parent of its own format.
  private static let formats: [(format: String, options: [String], hasParent: Bool)] = [
    ("raw", [], false), ("qcow2", [], true), ("qcow", [], true), ("qed", [], true), ("vmdk", [], true),
    ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"], false),
    ("vmdk", ["-o", "subformat=monolithicFlat"], false), ("vdi", [], true),
    ("vpc", ["-o", "force_size=on"], true),
    ("vhdx", [], true), ("parallels", [], false),
  ]

  /// The disk, and what lies below it, are read as they were written, whatever the image is.
  @Test(arguments: formats)
  func diskAndParentAreRead(_ format: String, _ options: [String], _ hasParent: Bool) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 90)
      var disk = ModelDisk(random.bytes(600_064) + [UInt8](repeating: 0, count: (4 << 20) - 600_064))
      disk.write(random.fill(40_000), at: 3_000_000)
      try folder.write(disk.bytes, to: "source")
      try ReferenceTool.qemuImg.run(
        ["convert", "-f", "raw", "-O", format] + options + ["source", "base.\(format)"], folder: folder.path
      ).expecting(0)
      var top = "base.\(format)"
      let lower = disk
      if hasParent {
        top = "top.\(format)"
        // The judge makes no differencing images of some of them.
        try BuiltProduct.qemuImg.run(
          ["create", "-q", "-f", format, "-b", "base.\(format)", "-F", format, top], folder: folder.path
        ).expecting(0)
        let chain = try ImageOpener.open(folder.file(top), OpenOptions(format: format, access: .readWrite))
        let bytes = random.bytes(200_000)
        try chain.writeBytes(bytes, at: 500_000)
        disk.write(bytes, at: 500_000)
        try chain.close()
      }
      try MountedImage.with(folder.file(top), in: folder) { mount in
        try expect(mount.file("disk.raw"), disk)
        let layers = try FileManager.default.contentsOfDirectory(atPath: mount.file("layers")).sorted()
        #expect(layers.count == (hasParent ? 2 : 1))
        try expect(mount.file("layers/\(layers[layers.count - 1])/disk.raw"), lower)
      }
    }
  }

  /// Formats that others make.
  @Test(
    .enabled(if: Samples.areHere),
    arguments: [
      "ext2.vhd", "ext2.vmdk", "iotest-version3.vmdk", "log-replay.vhdx", "iotest-dynamic-1G.vhdx",
      "parallels-v1",
      "hfsplus_zlib.dmg", "simple-dmg.dmg", "simple-pattern.cloop", "empty.bochs",
    ])
  func samplesAreRead(_ name: String) throws {
    try TemporaryFolder.with { folder in
      let image = try Samples.unpack(name, into: folder)
      let expected = try RawDigest.of(try ImageOpener.open(image))
      try MountedImage.with(image, in: folder) { mount in
        let disk = try ImageOpener.open(mount.file("disk.raw"), OpenOptions(format: "raw"))
        #expect(try RawDigest.of(disk) == expected)
      }
    }
  }

  private func expect(_ path: String, _ disk: ModelDisk) throws {
    let place = ModelDisk.firstDifference(try Files.read(path), disk.bytes)
    #expect(place == nil, "\(path)")
  }

  /// A format that is written from front to back takes no writes in a mount, and that is said.
  @Test func mountsReadOnlyWhatIsWrittenOnce() throws {
    try TemporaryFolder.with { folder in
      let raw = try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "disk.raw")
      let stream = folder.file("stream.vmdk")
      try ReferenceTool.qemuImg(
        "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, stream)
      try MountedImage.with(stream, options: ["-o", "rw"], in: folder) { mount in
        #expect(FileHandle(forWritingAtPath: mount.file("disk.raw")) == nil && errno == EROFS)
        try ReferenceTool.io(
          ["read -P 5 0 1M"], on: mount.file("disk.raw"), format: "raw", isReadOnly: true)
      }
      let result = try BuiltProduct.imgfs.run(["-o", "rw", stream, try folder.makeFolder("mnt")])
      #expect(result.stderrText.hasPrefix("imgfs: warning: '\(stream)' is mounted read-only: "))
      try BuiltProduct.imgfs.run(["--unmount", folder.file("mnt")]).expecting(0)
    }
  }
}
