import Foundation
import TestSupport
import Testing

/// Real file systems in images, mounted out of the mounted tree.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized)
struct GuestFileSystemTests {
  struct Guest: Sendable, CustomTestStringConvertible {
    var name: String
    var byteCount: UInt64
    var make: [String]
    var mountOptions: String
    /// How the judge stores it.
    var conversion: [String]
    var testDescription: String { name }
  }

  static let guests = [
    Guest(
      name: "ext4", byteCount: 64 << 20, make: ["/sbin/mkfs.ext4", "-q", "-F"], mountOptions: "ro,noload",
      conversion: []),
    Guest(
      name: "xfs", byteCount: 320 << 20, make: ["/sbin/mkfs.xfs", "-q", "-f"], mountOptions: "ro,norecovery",
      conversion: ["-c", "-o", "compression_type=zstd"]),
    Guest(
      name: "btrfs", byteCount: 128 << 20, make: ["/sbin/mkfs.btrfs", "-q", "-f"], mountOptions: "ro",
      conversion: ["-o", "extended_l2=on,cluster_size=128k"]),
  ]

  /// Mounts a file's file system on a new folder while `body` runs.
  private func withLoopMount<T>(
    _ file: String, _ options: String, in folder: TemporaryFolder, _ body: (String) throws -> T
  ) throws -> T {
    let place = try folder.makeFolder("guest-\(UUID().uuidString.prefix(8))")
    try TestProcess.run(["/bin/mount", "-o", "loop,\(options)", file, place]).expecting(0)
    defer {
      if MountedImage.isMounted(place) { _ = try? TestProcess.run(["/bin/umount", "--lazy", place]) }
    }
    let result = try body(place)
    // A process that another test has just started may hold a descriptor of this one for a moment.
    guard MountedImage.waits(until: { (try? TestProcess.run(["/bin/umount", place]).status) == 0 }) else {
      throw TestFailure("'\(place)' stays in use")
    }
    return result
  }

  /// Digest and name of every file below a folder, sorted.
  private func digests(below folder: String) throws -> [String] {
    let result = try TestProcess.run(
      ["/usr/bin/find", ".", "-type", "f", "-exec", "/usr/bin/sha256sum", "{}", "+"], folder: folder
    ).expecting(0)
    return result.stdoutText.split(separator: "\n").map(String.init).sorted()
  }

  private func fill(_ place: String) throws {
    let random = try TestProcess.run(["/usr/bin/head", "-c", "3M", "/dev/urandom"]).expecting(0).stdout
    for folder in 0..<5 {
      try FileManager.default.createDirectory(
        atPath: "\(place)/folder \(folder)/deep/er", withIntermediateDirectories: true)
      for file in 0..<12 {
        let byteCount = [0, 1, 511, 4096, 70_000, 1_500_000][file % 6]
        let start = 100_000 * folder + 1000 * file
        let bytes =
          file < 6
          ? [UInt8](repeating: UInt8(1 + file), count: byteCount) : Array(random[start..<start + byteCount])
        try Files.write(bytes, to: "\(place)/folder \(folder)/deep/er/file\(file)")
      }
    }
  }

  @Test(arguments: guests) func showsEveryGuestFile(_ guest: Guest) throws {
    try TemporaryFolder.with { folder in
      let raw = try folder.write([], to: "guest.raw")
      try TestProcess.run(["/usr/bin/truncate", "-s", String(guest.byteCount), raw]).expecting(0)
      try TestProcess.run(guest.make + [raw]).expecting(0)
      let expected = try withLoopMount(raw, "rw", in: folder) { place in
        try fill(place)
        return try digests(below: place)
      }
      #expect(expected.count == 60)
      let image = folder.file("guest.qcow2")
      try ReferenceTool.qemuImg.run(["convert", "-O", "qcow2"] + guest.conversion + [raw, image]).expecting(0)
      try MountedImage.with(image, in: folder) { mount in
        try GuestImages.expectSame(mount.file("disk.raw"), raw)
        let found = try withLoopMount(mount.file("disk.raw"), guest.mountOptions, in: folder) { place in
          try digests(below: place)
        }
        #expect(found == expected)
      }
    }
  }

  /// The same guest before and after a change: out of a snapshot, and out of the disk above it.
  @Test func showsAGuestsPastAndPresent() throws {
    try TemporaryFolder.with { folder in
      let raw = try folder.write([], to: "guest.raw")
      try TestProcess.run(["/usr/bin/truncate", "-s", "48M", raw]).expecting(0)
      try TestProcess.run(["/sbin/mkfs.ext4", "-q", "-F", raw]).expecting(0)
      let before = try withLoopMount(raw, "rw", in: folder) { place in
        try fill(place)
        return try digests(below: place)
      }
      let image = folder.file("guest.qcow2")
      try ReferenceTool.qemuImg("convert", "-O", "qcow2", raw, image)
      try ReferenceTool.qemuImg("snapshot", "-c", "before", image)
      // The present: the guest changes a raw copy, and the judge writes it over the image's disk.
      let after = try withLoopMount(raw, "rw", in: folder) { place in
        try FileManager.default.removeItem(atPath: "\(place)/folder 0")
        try Files.write([UInt8](repeating: 65, count: 3_000_000), to: "\(place)/new")
        return try digests(below: place)
      }
      try ReferenceTool.qemuImg("convert", "-n", "-O", "qcow2", raw, image)
      #expect(before != after)
      try MountedImage.with(image, in: folder) { mount in
        for (name, expected) in [("disk.raw", after), ("snapshots/before/disk.raw", before)] {
          let found = try withLoopMount(mount.file(name), "ro,noload", in: folder) { try digests(below: $0) }
          #expect(found == expected)
        }
      }
    }
  }
}
