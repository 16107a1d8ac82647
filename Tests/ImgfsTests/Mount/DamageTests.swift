import Foundation
import TestSupport
import Testing

/// A damaged cluster is an error for whoever reads it, and for nobody else.
@Suite(.enabled(if: MountedImage.isPossible), .serialized)
struct DamageTests {
  private static let clusterSize = 65_536

  /// 8 MiB of random bytes as qcow2, and what is in it.
  private func image(in folder: TemporaryFolder, _ options: String...) throws -> (
    path: String, content: [UInt8]
  ) {
    let random = try TestProcess.run(["/usr/bin/head", "-c", "4M", "/dev/urandom"]).expecting(0).stdout
    var content: [UInt8] = []
    // Half of each cluster repeats, so that it compresses.
    for start in stride(from: 0, to: random.count, by: Self.clusterSize / 2) {
      content += random[start..<start + Self.clusterSize / 2]
      content += [UInt8](repeating: 0xAA, count: Self.clusterSize / 2)
    }
    let raw = try folder.write(content, to: "guest.raw")
    let path = folder.file("guest.qcow2")
    try ReferenceTool.qemuImg.run(["convert", "-O", "qcow2"] + options + [raw, path]).expecting(0)
    return (path, content)
  }

  private func number(in bytes: [UInt8], at offset: Int) -> UInt64 {
    bytes[offset..<offset + 8].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// Where the L2 entry of a cluster stands in the image (one L2 table).
  private func entryOffset(_ bytes: [UInt8], cluster: Int) -> Int {
    let l1 = Int(number(in: bytes, at: 40))
    return Int(number(in: bytes, at: l1) & 0x00ff_ffff_ffff_fe00) + 8 * cluster
  }

  /// Reads a file piece by piece: what was read, zeros where it could not be, and the pieces that failed.
  private func read(_ path: String, piece: Int, backwards: Bool) throws -> (content: [UInt8], failed: [Int]) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TestFailure("Could not open '\(path)': errno \(errno)") }
    defer { close(descriptor) }
    let size = Int(lseek(descriptor, 0, SEEK_END))
    var content = [UInt8](repeating: 0, count: size)
    var failed: [Int] = []
    for number in 0..<size / piece {
      let index = backwards ? size / piece - 1 - number : number
      let count = unsafe content.withUnsafeMutableBytes { raw in
        unsafe pread(
          descriptor, raw.baseAddress.map { unsafe $0 + index * piece }, piece, off_t(index * piece))
      }
      if count != piece {
        #expect(count == -1 && errno == EIO)
        failed.append(index)
      }
    }
    return (content, failed.sorted())
  }

  private func expectDamage(
    _ image: String, _ content: [UInt8], only damaged: Int, in folder: TemporaryFolder
  ) throws {
    let range = damaged * Self.clusterSize..<(damaged + 1) * Self.clusterSize
    var expected = content
    expected.replaceSubrange(range, with: repeatElement(0, count: range.count))
    // A new mount each time: what was read once stays in the page cache.
    for (piece, backwards) in [(4096, false), (4096, true), (65_536, false)] {
      try MountedImage.with(image, in: folder) { mount in
        let result = try read(mount.file("disk.raw"), piece: piece, backwards: backwards)
        #expect(result.failed == Array(range.lowerBound / piece..<range.upperBound / piece))
        #expect(result.content == expected)
        // Once more, now that the readable part is cached.
        #expect(try read(mount.file("disk.raw"), piece: piece, backwards: backwards).failed == result.failed)
      }
    }
  }

  @Test func failsOnlyWhereAnEntryIsDamaged() throws {
    try TemporaryFolder.with { folder in
      let (path, content) = try image(in: folder)
      var bytes = try Files.read(path)
      // The cluster's offset is no multiple of the cluster size any more.
      bytes[entryOffset(bytes, cluster: 20) + 6] |= 2
      try Files.write(bytes, to: path)
      try expectDamage(path, content, only: 20, in: folder)
    }
  }

  @Test func failsOnlyWhereCompressedDataIsDamaged() throws {
    try TemporaryFolder.with { folder in
      let (path, content) = try image(in: folder, "-c")
      var bytes = try Files.read(path)
      let entry = number(in: bytes, at: entryOffset(bytes, cluster: 33))
      #expect(entry >> 62 == 1)
      // 64 KiB clusters: bits 0-53 are the offset (qcow2.txt, "Compressed Clusters Descriptor").
      let start = Int(entry & (1 << 54 - 1))
      bytes.replaceSubrange(start..<start + 2000, with: repeatElement(0xFF, count: 2000))
      try Files.write(bytes, to: path)
      try expectDamage(path, content, only: 33, in: folder)
    }
  }

  @Test func letsTheRestBeRescued() throws {
    try TemporaryFolder.with { folder in
      let (path, content) = try image(in: folder)
      var bytes = try Files.read(path)
      bytes[entryOffset(bytes, cluster: 7) + 6] |= 2
      try Files.write(bytes, to: path)
      try MountedImage.with(path, in: folder) { mount in
        let copy = folder.file("rescued.raw")
        let disk = mount.file("disk.raw")
        let result = try TestProcess.run(
          ["/bin/dd", "if=\(disk)", "of=\(copy)", "bs=64k", "conv=noerror,sync"], environment: ["LC_ALL": "C"]
        )
        #expect(result.stderrText.contains("Input/output error"))
        var expected = content
        expected.replaceSubrange(7 * 65_536..<8 * 65_536, with: repeatElement(0, count: 65_536))
        #expect(try Files.read(copy) == expected)
      }
    }
  }

  // MARK: The image changes while it is mounted

  private static let formats = ["raw", "qcow2", "vmdk", "vdi", "vhdx"]

  /// 64 MiB, and the last MiB of it not yet read by anybody.
  private func withFullImage(_ format: String, _ body: (TemporaryFolder, String, MountedImage) throws -> Void)
    throws
  {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.\(format)")
      try ReferenceTool.create(image, format: format, size: 64 << 20)
      try ReferenceTool.io(["write -P 7 0 64M"], on: image, format: format)
      try MountedImage.with(image, options: ["-F", format], in: folder) { mount in
        #expect(try read(mount, at: 0) == 7)
        try body(folder, image, mount)
      }
    }
  }

  /// The first of 64 KiB at `offset`, nil for an error.
  private func read(_ mount: MountedImage, at offset: UInt64) throws -> UInt8? {
    let handle = try #require(FileHandle(forReadingAtPath: mount.file("disk.raw")))
    defer { try? handle.close() }
    try handle.seek(toOffset: offset)
    let bytes = try? handle.read(upToCount: 65_536)
    return bytes?.first
  }

  private func cut(_ image: String, to byteCount: UInt64) throws {
    let handle = try #require(FileHandle(forWritingAtPath: image))
    try handle.truncate(atOffset: byteCount)
    try handle.close()
  }

  @Test(arguments: formats) func failsWhereTheImageIsCutOff(_ format: String) throws {
    try withFullImage(format) { _, image, mount in
      try cut(image, to: 16 << 20)
      // An error, and neither zeros nor an end of the file.
      #expect(try read(mount, at: 60 << 20) == nil)
      #expect(try read(mount, at: 4 << 20) == 7)
      try cut(image, to: 0)
      #expect(try read(mount, at: 12 << 20) == nil)
      #expect(Files.exists(mount.file("info.json")))
    }
  }

  @Test(arguments: formats) func goesOnWhereTheImageIsTakenAwayOrReplaced(_ format: String) throws {
    try withFullImage(format) { folder, image, mount in
      try FileManager.default.removeItem(atPath: image)
      #expect(try read(mount, at: 30 << 20) == 7)
      _ = try folder.write([UInt8](repeating: 9, count: 1 << 20), to: "disk.\(format)")
      #expect(try read(mount, at: 60 << 20) == 7)
    }
  }

  @Test(arguments: formats) func survivesAnImageThatIsOverwritten(_ format: String) throws {
    try withFullImage(format) { _, image, mount in
      var random = SeededRandom(seed: 6)
      let handle = try #require(FileHandle(forWritingAtPath: image))
      for offset in stride(from: 0, to: 65 << 20, by: 1 << 20) {
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: Data((0..<65_536).map { _ in UInt8.random(in: 0...255, using: &random) }))
      }
      try handle.close()
      for place in 0..<64 { _ = try read(mount, at: UInt64(place) << 20) }
      for name in ["info.json", "map.json"] { _ = try? Files.read(mount.file(name)) }
      _ = try? FileManager.default.contentsOfDirectory(atPath: mount.file("snapshots"))
      _ = try? FileManager.default.contentsOfDirectory(atPath: mount.file("partitions"))
      #expect(MountedImage.isRunning(mount.process))
    }
  }
}
