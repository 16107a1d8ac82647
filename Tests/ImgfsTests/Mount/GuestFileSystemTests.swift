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

  @Test(arguments: guests) func showsEveryGuestFile(_ guest: Guest) throws {
    try TemporaryFolder.with { folder in
      let raw = try folder.write([], to: "guest.raw")
      try TestProcess.run(["/usr/bin/truncate", "-s", String(guest.byteCount), raw]).expecting(0)
      try TestProcess.run(guest.make + [raw]).expecting(0)
      let expected = try LoopMount.with(raw, "rw", in: folder) { place in
        try LoopMount.fill(place)
        return try LoopMount.digests(below: place)
      }
      #expect(expected.count == 60)
      let image = folder.file("guest.qcow2")
      try ReferenceTool.qemuImg.run(["convert", "-O", "qcow2"] + guest.conversion + [raw, image]).expecting(0)
      try MountedImage.with(image, in: folder) { mount in
        try GuestImages.expectSame(mount.file("disk.raw"), raw)
        let found = try LoopMount.with(mount.file("disk.raw"), guest.mountOptions, in: folder) { place in
          try LoopMount.digests(below: place)
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
      let before = try LoopMount.with(raw, "rw", in: folder) { place in
        try LoopMount.fill(place)
        return try LoopMount.digests(below: place)
      }
      let image = folder.file("guest.qcow2")
      try ReferenceTool.qemuImg("convert", "-O", "qcow2", raw, image)
      try ReferenceTool.qemuImg("snapshot", "-c", "before", image)
      // The present: the guest changes a raw copy, and the judge writes it over the image's disk.
      let after = try LoopMount.with(raw, "rw", in: folder) { place in
        try FileManager.default.removeItem(atPath: "\(place)/folder 0")
        try Files.write([UInt8](repeating: 65, count: 3_000_000), to: "\(place)/new")
        return try LoopMount.digests(below: place)
      }
      try ReferenceTool.qemuImg("convert", "-n", "-O", "qcow2", raw, image)
      #expect(before != after)
      try MountedImage.with(image, in: folder) { mount in
        for (name, expected) in [("disk.raw", after), ("snapshots/before/disk.raw", before)] {
          let found = try LoopMount.with(mount.file(name), "ro,noload", in: folder) {
            try LoopMount.digests(below: $0)
          }
          #expect(found == expected)
        }
      }
    }
  }
}
