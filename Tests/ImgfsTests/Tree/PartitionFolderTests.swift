import FormatEngine
import Foundation
import TestSupport
import Testing

@testable import imgfs

/// The folder of a disk's partitions, and the links in it.
@Suite struct PartitionFolderTests {
  /// A raw disk of 64 MiB: a GPT, ext4 in partition 1, FAT in partition 2, nothing in partition 5.
  static func makeDisk(_ name: String, in folder: TemporaryFolder) throws -> String {
    let disk = try folder.write([], to: name)
    try TestProcess.run(["/usr/bin/truncate", "-s", "64M", disk]).expecting()
    try partition(
      disk,
      """
      label: gpt
      1: start=2048, size=32768, name="root/../part", uuid=AAAAAAAA-0000-0000-0000-000000000001
      2: start=40960, size=16384, name="same"
      5: start=60000, size=100, name="same"
      """, in: folder)
    let content = try folder.write([], to: "content")
    try TestProcess.run(["/usr/bin/truncate", "-s", "16M", content]).expecting()
    let uuid = "11111111-2222-3333-4444-555555555555"
    try TestProcess.run(["/usr/sbin/mkfs.ext4", "-q", "-L", "the label", "-U", uuid, content]).expecting()
    try put(content, on: disk, atSector: 2048)
    try TestProcess.run(["/usr/bin/truncate", "-s", "0", content]).expecting()
    try TestProcess.run(["/usr/bin/truncate", "-s", "8M", content]).expecting()
    try TestProcess.run(["/usr/sbin/mkfs.vfat", "-n", "FATLABEL", "-i", "1234ABCD", content]).expecting()
    try put(content, on: disk, atSector: 40960)
    return disk
  }

  /// Writes a table with sfdisk, which takes a file or what it says on standard input.
  static func partition(_ disk: String, _ script: String, in folder: TemporaryFolder) throws {
    let input = try folder.write(Array(script.utf8), to: "script")
    try TestProcess.run(["/usr/sbin/sfdisk", "--quiet", "--no-tell-kernel", disk], stdin: input).expecting()
  }

  private static func put(_ content: String, on disk: String, atSector sector: Int) throws {
    let words = [
      "if=\(content)", "of=\(disk)", "seek=\(sector)", "bs=512", "conv=notrunc,sparse", "status=none",
    ]
    try TestProcess.run(["/bin/dd"] + words).expecting()
  }

  private func system(_ path: String, isWritable: Bool = false) throws -> FileSystem {
    let options = OpenOptions(
      format: path.hasSuffix("qcow2") ? "qcow2" : "raw", access: isWritable ? .readWrite : .readOnly)
    return FileSystem(
      ImageSession(try ImageOpener.open(path, options), access: ImageSession.Access(isWritable: isWritable)))
  }

  private func names(_ system: FileSystem, _ folder: String...) throws -> [String] {
    var id = try #require(try system.find("partitions")).id
    for name in folder { id = try #require(try system.lookUp(Array(name.utf8), in: id).found).id }
    return try system.names(in: id)
  }

  private func target(_ system: FileSystem, _ folder: String, _ name: String) throws -> String {
    let link = try #require(try system.find("partitions", folder, name))
    #expect(link.kind == .link)
    return String(decoding: try system.target(of: link.id), as: UTF8.self)
  }

  private func attribute(_ system: FileSystem, _ name: String, of path: String) throws -> String? {
    let found = path.isEmpty ? try system.find("partitions") : try system.find("partitions", path)
    return try system.extendedAttribute("user.imgfs." + name, of: try #require(found).id)
  }

  @Test func partitionsAreFilesAndTheirNamesAreLinks() throws {
    try TemporaryFolder.with { folder in
      let system = try system(Self.makeDisk("disk.img", in: folder))
      #expect(
        try names(system) == [
          "1.raw", "2.raw", "5.raw", "by-label", "by-partlabel", "by-uuid", "by-partuuid",
        ])
      #expect(try names(system, "by-label") == ["the label", "FATLABEL"])
      #expect(try target(system, "by-label", "FATLABEL") == "../2.raw")
      #expect(try names(system, "by-uuid") == ["11111111-2222-3333-4444-555555555555", "1234-ABCD"])
      #expect(try target(system, "by-uuid", "1234-ABCD") == "../2.raw")
      #expect(try names(system, "by-partlabel") == ["root%2F..%2Fpart", "same", "same~2"])
      #expect(try target(system, "by-partlabel", "same~2") == "../5.raw")
      #expect(try target(system, "by-partuuid", "aaaaaaaa-0000-0000-0000-000000000001") == "../1.raw")
      #expect(try names(system, "by-partuuid").count == 3)
      #expect(try system.find("partitions", "2.raw")?.byteCount == 16384 * 512)
    }
  }

  @Test func partitionsHoldTheirBytesOfTheDisk() throws {
    try TemporaryFolder.with { folder in
      let disk = try Self.makeDisk("disk.img", in: folder)
      let image = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg("convert", "-f", "raw", "-O", "qcow2", disk, image)
      let (content, system) = (try Files.read(disk), try system(image))
      for (name, start, count) in [("1.raw", 2048, 32768), ("2.raw", 40960, 16384), ("5.raw", 60000, 100)] {
        let file = try #require(try system.find("partitions", name))
        let handle = try system.open(file.id, forWriting: false).handle
        let bytes = try system.bytes(handle, at: 0, count: 64 << 20)
        #expect(bytes == Array(content[start * 512..<(start + count) * 512]))
        #expect(try system.bytes(handle, at: UInt64(count * 512), count: 1) == [])
        system.close(handle)
      }
    }
  }

  @Test func attributesSayWhereAndWhat() throws {
    try TemporaryFolder.with { folder in
      let disk = try Self.makeDisk("disk.img", in: folder)
      let image = try system(disk)
      let expected = [
        ("offset", "1048576"), ("size", "16777216"), ("content", "ext4"), ("label", "the label"),
        ("bootable", "no"),
        ("uuid", "11111111-2222-3333-4444-555555555555"), ("partition_name", "root/../part"),
        ("partition_uuid", "aaaaaaaa-0000-0000-0000-000000000001"),
        ("partition_type", "0fc63daf-8483-4772-8e79-3d69d8477de4"),
      ]
      for (name, value) in expected { #expect(try attribute(image, name, of: "1.raw") == value) }
      #expect(try attribute(image, "label", of: "5.raw") == nil)
      #expect(try attribute(image, "table", of: "") == "gpt")
      #expect(try attribute(image, "sector_size", of: "") == "512")
      #expect(try attribute(image, "findings", of: "") == nil)
      // The backup at the end is gone.
      try TestProcess.run(["/usr/bin/truncate", "-s", "60M", disk]).expecting()
      #expect(try attribute(try system(disk), "findings", of: "")?.contains("backup") == true)
    }
  }

  @Test func folderIsEmptyWithoutATable() throws {
    try TemporaryFolder.with { folder in
      for count in [0, 100, 512, 1 << 20] {
        let disk = try folder.write([UInt8](repeating: 0, count: count), to: "empty.img")
        #expect(try names(try system(disk)) == [])
      }
    }
  }

  /// All are files, but only those that Linux would show are looked into.
  @Test func hundredsOfPartitionsAreListed() throws {
    try TemporaryFolder.with { folder in
      let disk = try folder.write([], to: "disk.img")
      try TestProcess.run(["/usr/bin/truncate", "-s", "8M", disk]).expecting()
      let lines = (0..<300).map { "start=\(2048 + $0 * 8), size=8, name=\"no. \($0 + 1)\"" }
      try Self.partition(disk, "label: gpt\ntable-length: 300\n" + lines.joined(separator: "\n"), in: folder)
      var bytes = try Files.read(disk)
      for number in [1, 256, 257] {
        let start = (2048 + (number - 1) * 8) * 512
        bytes.replaceSubrange(start..<start + 8, with: Array("LUKS".utf8) + [0xba, 0xbe, 0, 1])
        let uuid = Array("the UUID of \(number)".utf8)
        bytes.replaceSubrange(start + 168..<start + 168 + uuid.count, with: uuid)
      }
      try Files.write(bytes, to: disk)
      let system = try system(disk)
      #expect(try names(system).count == 303)
      #expect(try names(system, "by-partlabel").count == 300)
      #expect(try names(system, "by-uuid") == ["the UUID of 1", "the UUID of 256"])
    }
  }

  /// As from a guest, or from sfdisk on disk.raw.
  @Test func newTableIsSeenAtOnce() throws {
    try TemporaryFolder.with { folder in
      let system = try system(Self.makeDisk("disk.img", in: folder), isWritable: true)
      let first = try #require(try system.find("partitions", "1.raw"))
      let other = try folder.write([], to: "other.img")
      try TestProcess.run(["/usr/bin/truncate", "-s", "64M", other]).expecting()
      try Self.partition(
        other, "label: dos\nlabel-id: 0xabcd0001\nstart=2048, size=32768\nstart=40000, size=9\n", in: folder)
      let sector = Array(try Files.read(other)[..<512])
      let disk = try #require(try system.find("disk.raw"))
      let handle = try system.open(disk.id, forWriting: true).handle
      guard case .disk(let opened) = try system.file(handle) else { throw TestFailure("No disk") }
      try write(sector, to: opened, at: 0)
      #expect(try names(system) == ["1.raw", "2.raw", "by-label", "by-uuid", "by-partuuid"])
      #expect(try names(system, "by-partuuid") == ["abcd0001-01", "abcd0001-02"])
      // Where it was is the same file; what was elsewhere is another one.
      #expect(try system.find("partitions", "1.raw")?.id == first.id)
      #expect(try attribute(system, "partition_type", of: "1.raw") == "0x83")
      // A label that is written through the partition. The same bytes are open for writing in one file at a time.
      system.close(handle)
      let part = try system.open(first.id, forWriting: true).handle
      guard case .disk(let window) = try system.file(part) else { throw TestFailure("No disk") }
      try write([UInt8](repeating: 0, count: 1024), to: window, at: 1024)
      #expect(try names(system) == ["1.raw", "2.raw", "by-partuuid"])
      // Without the MBR the GPT is there again, and without both nothing is.
      try write([0, 0], to: opened, at: 510)
      #expect(try names(system).contains("5.raw"))
      try write([0], to: opened, at: 512)
      #expect(try names(system) == [])
      system.close(part)
    }
  }

  private func write(_ bytes: [UInt8], to disk: OpenDisk, at offset: UInt64) throws {
    let buffer = AlignedBuffer(byteCount: bytes.count)
    unsafe buffer.prefix(bytes.count).copyBytes(from: bytes)
    let count = unsafe try disk.write(UnsafeRawBufferPointer(buffer.prefix(bytes.count)), at: offset)
    #expect(count == bytes.count)
  }

  /// Snapshots and lower layers have the partitions that they had.
  @Test func snapshotsAndLayersHaveTheirOwn() throws {
    try TemporaryFolder.with { folder in
      let raw = try Self.makeDisk("disk.img", in: folder)
      let (base, top) = (folder.file("base.qcow2"), folder.file("top.qcow2"))
      try ReferenceTool.qemuImg("convert", "-f", "raw", "-O", "qcow2", raw, base)
      try ReferenceTool.qemuImg("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
      try ReferenceTool.qemuImg("snapshot", "-c", "before", top)
      try ReferenceTool.io(["write -P 0 0 1M"], on: top, format: "qcow2")
      let system = try system(top)
      #expect(try names(system) == [])
      for path in [["snapshots", "before"], ["layers", "1-base.qcow2"]] {
        let folder = try #require(try system.find(path[0], path[1], "partitions"))
        #expect(try system.names(in: folder.id).count == 7)
        let file = try #require(try system.find(path[0], path[1], "partitions", "2.raw"))
        let handle = try system.open(file.id, forWriting: false).handle
        #expect(try system.bytes(handle, at: 510, count: 2) == [0x55, 0xaa])
        system.close(handle)
      }
    }
  }
}
