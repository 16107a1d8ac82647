import Foundation
import TestSupport
import Testing

/// Real file systems that are made and filled through the mount.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct GuestWritingTests {
  struct Guest: Sendable {
    var name: String
    var byteCount: Int
    var make: [String]
    /// Looks at the file system in a file and changes nothing.
    var check: [String]
  }
  static let ext4 = Guest(
    name: "ext4", byteCount: 64 << 20, make: ["/sbin/mkfs.ext4", "-q", "-F"], check: ["/sbin/e2fsck", "-fn"])
  static let xfs = Guest(
    name: "xfs", byteCount: 320 << 20, make: ["/sbin/mkfs.xfs", "-q", "-f"],
    check: ["/sbin/xfs_repair", "-n"])
  static let btrfs = Guest(
    name: "btrfs", byteCount: 128 << 20, make: ["/sbin/mkfs.btrfs", "-q", "-f"],
    check: ["/bin/btrfs", "check", "--readonly"])

  struct Case: Sendable, CustomTestStringConvertible {
    var image: WritableImage
    var guest: Guest
    var testDescription: String { "\(guest.name) in \(image.testDescription)" }
  }

  /// One guest in each format, and each guest in one; a long run: each in each.
  static let cases: [Case] = {
    let guests = [ext4, xfs, btrfs]
    if Effort.current == .soak {
      return (WritableImage.all + WritableImage.kinds).flatMap { image in
        guests.map { Case(image: image, guest: $0) }
      }
    }
    return WritableImage.all.map { image in
      Case(image: image, guest: image.format == "vhdx" ? xfs : image.format == "qcow2" ? btrfs : ext4)
    }
  }()

  /// A tree is copied in, and is there for the guest's own checker and for another mount, by the judge's own route.
  @Test(arguments: cases) func keepsWhatAGuestWrites(_ item: Case) throws {
    try TemporaryFolder.with { folder in
      let source = try folder.makeFolder("source")
      try LoopMount.fill(source)
      try Shell.run(
        """
        ln -s 'folder 1/deep' link; ln 'folder 2/deep/er/file5' hard; chmod 640 hard; mkdir empty
        truncate -s 3M sparse; printf end >>sparse
        """, in: TemporaryFolder(at: source))
      let image = try item.image.make(item.guest.byteCount, in: folder)
      try item.image.mounted(image, in: folder) { mount in
        let disk = mount.file("disk.raw")
        try TestProcess.run(item.guest.make + [disk]).expecting(0)
        try LoopMount.with(disk, "rw", in: folder) { place in
          try TestProcess.run(["/bin/cp", "-a", source + "/.", place]).expecting(0)
          try TestProcess.run(["/bin/sync", "\(place)/hard", "\(place)/sparse"]).expecting(0)
        }
      }
      let raw = try item.image.judged(image, in: folder)
      try TestProcess.run(item.guest.check + [raw]).expecting(0)
      let expected = (try LoopMount.names(below: source), try LoopMount.digests(below: source))
      try LoopMount.with(raw, "ro", in: folder) { place in
        try expectSame(place, expected)
      }
      try MountedImage.with(image, options: try item.image.words(in: folder), in: folder) { mount in
        try LoopMount.with(mount.file("disk.raw"), "ro", in: folder) { place in
          try expectSame(place, expected)
        }
      }
    }
  }

  private func expectSame(_ place: String, _ expected: (names: [String], digests: [String])) throws {
    let (names, digests) = (try LoopMount.names(below: place), try LoopMount.digests(below: place))
    #expect(names == expected.names)
    #expect(digests == expected.digests)
  }

  static let packers: [(name: String, make: [String])] = [
    ("squashfs", ["/usr/bin/mksquashfs", "SOURCE", "TARGET", "-noappend", "-quiet", "-no-progress"]),
    ("erofs", ["/usr/bin/mkfs.erofs", "TARGET", "SOURCE"]),
  ]

  /// File systems that are never written in place: packed elsewhere, written through one mount, read through another.
  @Test(arguments: packers, Effort.current == .soak ? WritableImage.all : [WritableImage.chosen[1]])
  func keepsPackedFileSystems(_ packer: (name: String, make: [String]), _ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let source = try folder.makeFolder("source")
      try LoopMount.fill(source)
      let packed = folder.file("packed")
      try TestProcess.run(
        packer.make.map { $0 == "SOURCE" ? source : $0 == "TARGET" ? packed : $0 }
      ).expecting(0)
      let image = try kind.make(32 << 20, in: folder)
      try kind.mounted(image, in: folder) { mount in
        try Shell.run(
          "dd if=packed of=\"$disk\" bs=64k conv=notrunc,fsync", ["disk": mount.file("disk.raw")], in: folder)
      }
      try MountedImage.with(image, options: try kind.words(in: folder), in: folder) { mount in
        try LoopMount.with(mount.file("disk.raw"), "ro", in: folder) { place in
          let (found, expected) = (try LoopMount.digests(below: place), try LoopMount.digests(below: source))
          #expect(found == expected)
        }
      }
    }
  }
}
