import Foundation
import TestSupport
import Testing

/// `--overlay` and `--commit`: the image stays as it is until it is asked to change.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct OverlayMountTests {
  private func base(_ format: String, _ folder: TemporaryFolder) throws -> String {
    let path = folder.file("base.\(format)")
    try ReferenceTool.create(path, format: format, size: 8 << 20)
    try ReferenceTool.io(["write -P 1 0 2M", "write -P 5 7M 512k"], on: path, format: format)
    return path
  }

  private func io(_ commands: String..., on mount: MountedImage) throws {
    try ReferenceTool.io(commands, on: mount.file("disk.raw"), format: "raw")
  }

  private func commit(_ mount: MountedImage) throws -> ProcessResult {
    try BuiltProduct.imgfs.run(["--commit", mount.path])
  }

  @Test(arguments: ["qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "parallels", "raw"])
  func leavesTheImageAlone(_ format: String) throws {
    try TemporaryFolder.with { folder in
      let image = try base(format, folder)
      let before = try Files.read(image)
      try MountedImage.with(image, options: ["-F", format, "--overlay", "tmp"], in: folder) { mount in
        try io("write -P 2 1M 1M", "write -z 7M 64k", on: mount)
        try io("read -P 1 0 1M", "read -P 2 1M 1M", "read -P 0 7M 64k", "read -P 5 7405568 64k", on: mount)
        #expect(try FileManager.default.contentsOfDirectory(atPath: mount.file("layers")).count == 2)
      }
      #expect(try Files.read(image) == before)
      let left = try FileManager.default.contentsOfDirectory(atPath: folder.path)
      #expect(left.filter { !$0.hasPrefix("mount-") } == ["base.\(format)"])
    }
  }

  @Test(arguments: ["qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "raw"], ["tmp", "over.qcow2"])
  func foldsTheOverlayIn(_ format: String, _ overlay: String) throws {
    try TemporaryFolder.with { folder in
      let image = try base(format, folder)
      let place = overlay == "tmp" ? overlay : folder.file(overlay)
      try MountedImage.with(image, options: ["-F", format, "--overlay", place], in: folder) { mount in
        try io("write -P 2 1M 1M", "write -z 7M 64k", on: mount)
        try commit(mount).expecting(0)
        // The mount goes on: what is written from now on is in the overlay again.
        try io("read -P 1 0 1M", "read -P 2 1M 1M", "write -P 3 4M 64k", on: mount)
        try io("read -P 3 4M 64k", "read -P 0 7M 64k", on: mount)
      }
      try ReferenceTool.io(
        ["read -P 1 0 1M", "read -P 2 1M 1M", "read -P 0 4M 64k", "read -P 0 7M 64k"], on: image,
        format: format)
      #expect(try ReferenceTool.check(image, format: format).isClean)
    }
  }

  @Test func goesOnWithAnOverlayThatIsKept() throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      let before = try Files.read(image)
      let overlay = folder.file("over.qcow2")
      try MountedImage.with(image, options: ["--overlay", overlay], in: folder) { mount in
        try io("write -P 2 1M 1M", on: mount)
      }
      #expect(try ReferenceTool.check(overlay, format: "qcow2").isClean)
      try ReferenceTool.io(["read -P 1 0 1M", "read -P 2 1M 1M"], on: overlay, format: "qcow2")
      try MountedImage.with(image, options: ["-o", "overlay=\(overlay)"], in: folder) { mount in
        try io("read -P 2 1M 1M", "write -P 3 2M 64k", on: mount)
      }
      try ReferenceTool.io(["read -P 2 1M 1M", "read -P 3 2M 64k"], on: overlay, format: "qcow2")
      #expect(try Files.read(image) == before)
      let other = try base("vdi", folder)
      let refused = try BuiltProduct.imgfs.run(["--overlay", overlay, other, try folder.makeFolder("mnt")])
      #expect(refused.status == 1)
      #expect(refused.stderrText.contains("is no overlay of '\(other)'"))
    }
  }

  /// What it was taken of lies in the image below, in part.
  @Test func isNotFoldedInUnderItsSnapshots() throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      let before = try Files.read(image)
      try MountedImage.with(image, options: ["--overlay", "tmp"], in: folder) { mount in
        try io("write -P 2 0 64k", on: mount)
        try FileManager.default.createDirectory(
          atPath: mount.file("snapshots/then"), withIntermediateDirectories: false)
        try io("write -P 3 64k 64k", on: mount)
        let result = try commit(mount)
        #expect(result.status == 1 && result.stderrText.contains("The overlay has snapshots"))
        #expect(try Files.read(image) == before)
        let then = try Files.read(mount.file("snapshots/then/disk.raw"))
        #expect(then[..<65536].allSatisfy { $0 == 2 } && then[65536..<131_072].allSatisfy { $0 == 1 })
        #expect(unsafe rmdir(mount.file("snapshots/then")) == 0)
        try commit(mount).expecting(0)
        try io("read -P 2 0 64k", "read -P 3 64k 64k", on: mount)
      }
    }
  }

  /// A snapshot, and formats that nobody writes.
  @Test func isWrittenOverWhatCannotBe() throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      try ReferenceTool.qemuImg("snapshot", "-c", "then", image)
      try ReferenceTool.io(["write -P 9 0 8M"], on: image, format: "qcow2")
      try MountedImage.with(image, options: ["--snapshot", "then", "--overlay", "tmp"], in: folder) { mount in
        try io("read -P 1 0 2M", "write -P 2 0 64k", on: mount)
        try io("read -P 2 0 64k", "read -P 1 64k 1M", on: mount)
        let result = try commit(mount)
        #expect(result.status == 1 && result.stderrText.contains("lies over a snapshot"))
        try io("read -P 2 0 64k", on: mount)
      }
      let stream = folder.file("stream.vmdk")
      try ReferenceTool.qemuImg(
        "convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized", image, stream)
      try MountedImage.with(stream, options: ["--overlay", "tmp"], in: folder) { mount in
        try io("write -P 2 1M 1M", on: mount)
        try io("read -P 9 0 1M", "read -P 2 1M 1M", on: mount)
        #expect(try commit(mount).status == 1)
        try io("read -P 2 1M 1M", on: mount)
      }
    }
  }

  @Test func waitsForThoseWhoReadBelow() throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      try MountedImage.with(image, options: ["--overlay", "tmp"], in: folder) { mount in
        try io("write -P 2 1M 1M", on: mount)
        let lower = mount.file("layers/1-base.qcow2/disk.raw")
        let handle = try #require(FileHandle(forReadingAtPath: lower))
        let result = try commit(mount)
        #expect(result.status == 1 && result.stderrText.contains("below 'layers' or 'snapshots' open"))
        try handle.close()
        try commit(mount).expecting(0)
        // Another file now: nothing that the kernel kept of the old one is taken for it.
        try ReferenceTool.io(
          ["read -P 1 0 1M", "read -P 2 1M 1M"], on: lower, format: "raw", isReadOnly: true)
        // The whole disk may stay open.
        let disk = try #require(FileHandle(forUpdatingAtPath: mount.file("disk.raw")))
        try disk.seek(toOffset: 3 << 20)
        try disk.write(contentsOf: Data(repeating: 7, count: 4096))
        try disk.synchronize()
        try commit(mount).expecting(0)
        try disk.seek(toOffset: 3 << 20)
        #expect(try disk.read(upToCount: 4096) == Data(repeating: 7, count: 4096))
        try disk.close()
      }
      try ReferenceTool.io(["read -P 7 3M 4k"], on: image, format: "qcow2")
    }
  }

  @Test func saysWhoMayBeInTheWay() throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      try MountedImage.with(image, options: ["--overlay", "tmp"], in: folder) { mount in
        try io("write -P 2 1M 1M", on: mount)
        let node = "qcow2,file.driver=file,file.filename=base.qcow2,read-only=on"
        let result = try Holder.with(node, in: folder.path) { try commit(mount) }
        #expect(result.status == 1)
        let lines = result.stderrText.split(separator: "\n")
        #expect(lines.count == 2 && lines.first?.hasSuffix("Failed to get \"write\" lock") == true)
        #expect(lines.last == "Is another process using the image [\(image)]?")
        try commit(mount).expecting(0)
      }
      try ReferenceTool.io(["read -P 2 1M 1M"], on: image, format: "qcow2")
    }
  }

  /// A commit waits for the end of those who read below, and nobody waits for it meanwhile.
  @Test(arguments: [[], ["-s"]]) func waitsBesideTheOthers(_ more: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      try MountedImage.with(image, options: ["--overlay", "tmp"] + more, in: folder) { mount in
        try io("write -P 2 1M 1M", on: mount)
        let output = try Shell.run(
          """
          exec 3<"$mount/layers/1-base.qcow2/disk.raw"
          head -c 4k <&3 >/dev/null
          "$imgfs" --commit "$mount" 3<&- & commit=$!
          sleep 0.1
          # As many readers as there may be threads that answer.
          for reader in {1..16}; do
            dd if="$mount/disk.raw" of=/dev/null iflag=direct bs=64k count=1 status=none 3<&- & readers+=($!)
          done
          for reader in ${readers[@]}; do wait $reader; done
          [ -e /proc/$commit/exe ] && echo "read meanwhile"
          exec 3<&-
          wait $commit && echo committed
          """, ["imgfs": try BuiltProduct.imgfs.path, "mount": mount.path], in: folder)
        #expect(output == "read meanwhile\ncommitted\n")
      }
      try ReferenceTool.io(["read -P 2 1M 1M"], on: image, format: "qcow2")
    }
  }

  /// Writes 32 KiB at a place in units of that, and reads them again.
  private static func writeAndRead(_ disk: String, at place: Int, _ value: UInt8) throws {
    guard let handle = FileHandle(forUpdatingAtPath: disk) else { throw TestFailure("It does not open") }
    let bytes = Data(repeating: value, count: 32_768)
    try handle.seek(toOffset: UInt64(place) * 32_768)
    try handle.write(contentsOf: bytes)
    try handle.seek(toOffset: UInt64(place) * 32_768)
    guard try handle.read(upToCount: 32_768) == bytes else { throw TestFailure("Other bytes at \(place)") }
    try handle.close()
  }

  /// Whoever writes while the overlay is folded in waits, and loses nothing.
  @Test func foldsInBesideWriters() throws {
    try TemporaryFolder.with { folder in
      let image = try base("qcow2", folder)
      try MountedImage.with(image, options: ["--overlay", "tmp"], in: folder) { mount in
        let disk = mount.file("disk.raw")
        let failures = Threads.run(3) { number in
          do {
            for round in 1...40 {
              if number < 2 {
                try Self.writeAndRead(disk, at: round * 2 + number, UInt8(round))
              } else if round % 8 == 0 {
                try self.commit(mount).expecting(0)
              }
            }
            return nil
          } catch {
            return "\(error)"
          }
        }
        #expect(failures.isEmpty)
        try commit(mount).expecting(0)
      }
      for round in 1...40 {
        try ReferenceTool.io(["read -P \(round) \(round * 65_536) 64k"], on: image, format: "qcow2")
      }
      #expect(try ReferenceTool.check(image, format: "qcow2").isClean)
    }
  }
}
