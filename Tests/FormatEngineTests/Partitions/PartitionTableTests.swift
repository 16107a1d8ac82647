import FormatEngine
import Foundation
import TestSupport
import Testing

/// Tables that Linux's programs make, read as they read them.
@Suite struct PartitionTableTests {
  private let byteCount: UInt64 = 64 << 20

  /// A disk with the table of an sfdisk script.
  private func withDisk(_ script: String, _ body: (_ disk: String, _ folder: TemporaryFolder) throws -> Void)
    throws
  {
    try TemporaryFolder.with { folder in
      let disk = try DiskTool.makeDisk("disk", byteCount: byteCount, in: folder)
      try DiskTool.run("sfdisk", ["--quiet", "--no-tell-kernel", disk], input: script, in: folder)
      try body(disk, folder)
    }
  }

  /// Equal to what sfdisk and partx have.
  @discardableResult
  private func expectAsJudged(_ disk: String, in folder: TemporaryFolder, _ note: Comment? = nil) throws
    -> PartitionTable
  {
    let judged = try DiskTool.sfdiskTable(disk, in: folder)
    let table = try #require(try PartitionTable.read(file: disk), note)
    #expect(table.scheme.rawValue == judged.label, note)
    #expect(table.uuid == judged.id, note)
    // sfdisk has no UUIDs for the partitions of an MBR, partx has.
    let rows = table.rows.map { row in
      var row = row
      if table.scheme == .mbr { row.uuid = "" }
      return row
    }
    #expect(rows == judged.rows, note)
    let others = table.rows.map { row in
      var row = row
      (row.type, row.isBootable) = ("", false)
      return row
    }
    #expect(try others == DiskTool.partxRows(disk, sectorByteCount: 512, in: folder), note)
    return table
  }

  private func put(_ bytes: [UInt8], on disk: String, at offset: UInt64) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: disk))
    defer { try? file.close() }
    try file.seek(toOffset: offset)
    try file.write(contentsOf: Foundation.Data(bytes))
  }

  private func resize(_ disk: String, to byteCount: UInt64) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: disk))
    defer { try? file.close() }
    try file.truncate(atOffset: byteCount)
  }

  @Test(arguments: ["5", "f", "85"]) func logicalPartitionsHaveTheNumbersOfLinux(_ extended: String) throws {
    let script = """
      label: dos
      label-id: 0x0badcafe
      start=2048, size=4096, type=83, bootable
      start=8192, size=2048, type=c
      start=20480, size=81920, type=\(extended)
      start=120000, size=900, type=82
      start=22528, size=4096, type=83
      start=30000, size=1000, type=8e
      start=40960, size=2048, type=fd
      """
    try withDisk(script) { disk, folder in
      let table = try expectAsJudged(disk, in: folder)
      #expect(table.partitions.map(\.number) == [1, 2, 3, 4, 5, 6, 7])
      #expect(table.partitions.map(\.isExtended) == [false, false, true, false, false, false, false])
      #expect(table.partitions[2].byteCount == 81920 * 512)
      #expect(table.partitions[4].uuid == "0badcafe-05")
      #expect(table.findings == [])
    }
  }

  @Test func numbersNamesAndAttributesOfAGPTAreKept() throws {
    let script = """
      label: gpt
      label-id: 12345678-9ABC-DEF0-1234-56789ABCDEF0
      1: start=2048, size=4096, type=uefi, name="EFI system ü€"
      3: start=8192, size=2048, type=linux, uuid=AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE, attrs="LegacyBIOSBootable,GUID:63"
      128: start=20480, size=8192, type=swap, name="abcdefghijklmnopqrstuvwxyz0123456789"
      """
    try withDisk(script) { disk, folder in
      let table = try expectAsJudged(disk, in: folder)
      #expect(table.partitions.map(\.number) == [1, 3, 128])
      #expect(table.partitions.map(\.attributes) == [0, 1 << 63 | 4, 0])
      #expect(table.partitions[0].name == "EFI system ü€")
      #expect(table.findings == [])
    }
  }

  @Test func randomTablesAreReadAsSfdiskReadsThem() throws {
    var random = SeededRandom.fromEnvironment(or: 6601)
    for round in 0..<Effort.rounds(8) {
      let script = round % 2 == 0 ? randomGPT(&random) : randomMBR(&random)
      try withDisk(script) { disk, folder in
        try expectAsJudged(disk, in: folder, "round \(round) of \(random): \(script)")
      }
    }
  }

  private func randomGPT(_ random: inout SeededRandom) -> String {
    var (lines, next, number) = (["label: gpt"], 2048, 0)
    for _ in 0..<1 + random.below(12) {
      number += 1 + random.below(8)
      let size = 1 + random.below(5000)
      lines.append("\(number): start=\(next), size=\(size), name=\"no. \(number)\"")
      next += size + random.below(3000)
    }
    return lines.joined(separator: "\n")
  }

  private func randomMBR(_ random: inout SeededRandom) -> String {
    var (lines, next) = (["label: dos"], 2048)
    func add(_ number: Int, _ random: inout SeededRandom) {
      let size = 1 + random.below(5000)
      lines.append(
        "\(number): start=\(next), size=\(size), type=\(1 + random.below(4))\(random.oneIn(3) ? ", bootable" : "")"
      )
      // sfdisk wants this much before each logical partition.
      next += size + 2048 + random.below(1000)
    }
    let extended = 1 + random.below(4)
    for number in 1..<extended { add(number, &random) }
    lines.append("\(extended): start=\(next), size=\(130_000 - next), type=5")
    next += 2048
    for index in 0..<random.below(9) { add(5 + index, &random) }
    return lines.joined(separator: "\n")
  }

  @Test func tablesOfPartedAreRead() throws {
    try TemporaryFolder.with { folder in
      let disk = try DiskTool.makeDisk("disk", byteCount: byteCount, in: folder)
      let mbr =
        "mklabel msdos mkpart primary fat32 1MiB 9MiB mkpart extended 10MiB 60MiB "
        + "mkpart logical ext4 11MiB 20MiB mkpart logical linux-swap 21MiB 30MiB set 1 boot on rm 5"
      try DiskTool.run("parted", ["-s", disk] + mbr.split(separator: " ").map(String.init), in: folder)
      #expect(try expectAsJudged(disk, in: folder).partitions.map(\.number) == [1, 2, 5])
      let gpt = "mklabel gpt mkpart first ext4 1MiB 9MiB mkpart second xfs 9MiB 20MiB rm 1 name 2 other"
      try DiskTool.run("parted", ["-s", disk] + gpt.split(separator: " ").map(String.init), in: folder)
      #expect(try expectAsJudged(disk, in: folder).partitions.map(\.name) == ["other"])
    }
  }

  private let threePartitions = """
    label: gpt
    start=2048, size=4096, name=one
    start=8192, size=2048, name=two
    start=20480, size=8192, name=three
    """

  @Test func hybridMBRYieldsToItsGPT() throws {
    try withDisk(threePartitions) { disk, folder in
      try DiskTool.run("sgdisk", ["--hybrid", "2:3", disk], in: folder)
      let table = try expectAsJudged(disk, in: folder)
      #expect(table.scheme == .gpt && table.partitions.count == 3)
      // Without a GPT the two are left that the MBR has, too.
      for start in [512, byteCount - 512] { try put(Array(repeating: 0, count: 8), on: disk, at: start) }
      let rest = try #require(try PartitionTable.read(file: disk))
      #expect(rest.scheme == .mbr)
      #expect(rest.places == [[2, 8192, 2048], [3, 20480, 8192]])
      #expect(
        rest.findings == ["The primary GPT is damaged (it has no signature), and there is no sound backup"])
    }
  }

  /// Each way in which a primary table is damaged; the backup stands for it, as for sfdisk.
  @Test(
    arguments: [(512, "signature"), (525, "bytes"), (528, "checksum"), (572, "checksum"), (1064, "entries")]
      as [(UInt64, String)])
  func backupStandsForADamagedPrimary(_ offset: UInt64, _ reason: String) throws {
    try withDisk(threePartitions) { disk, folder in
      try put([0xfe], on: disk, at: offset)
      let table = try expectAsJudged(disk, in: folder)
      #expect(table.partitions.map(\.name) == ["one", "two", "three"])
      #expect(table.findings.count == 1 && table.findings[0].contains(reason), "\(table.findings)")
    }
  }

  @Test func damagedBackupIsAFinding() throws {
    try withDisk(threePartitions) { disk, folder in
      try put([1, 2, 3, 4], on: disk, at: byteCount - 512 + 16)
      let table = try expectAsJudged(disk, in: folder)
      #expect(table.findings == ["The backup GPT in sector 131071 is damaged (its checksum is wrong)"])
    }
  }

  @Test func grownDiskHasItsBackupElsewhere() throws {
    try withDisk(threePartitions) { disk, folder in
      try resize(disk, to: byteCount + 1 << 20)
      let grown = try expectAsJudged(disk, in: folder)
      #expect(grown.findings == ["The backup GPT is not at the end of the disk"])
      // The damaged entries of the primary table leave its header, which says where the backup is.
      try put([0xfe], on: disk, at: 1024 + 40)
      let table = try #require(try PartitionTable.read(file: disk))
      #expect(table.partitions == grown.partitions)
      #expect(table.findings.count == 1 && table.findings[0].contains("the backup in sector 131071 is used"))
    }
  }

  /// Linux sees no partition at all here.
  @Test func shortenedDiskShowsWhatIsThere() throws {
    try withDisk(threePartitions) { disk, folder in
      try resize(disk, to: 9000 * 512 + 100)
      let table = try #require(try PartitionTable.read(file: disk))
      #expect(table.places == [[1, 2048, 4096], [2, 8192, 808]])
      #expect(table.findings.contains("Partition 2 reaches past the end of the disk: it is cut"))
      #expect(table.findings.contains("Partition 3 lies past the end of the disk: it is left out"))
    }
  }

  /// A disk that a file system has for itself has no partitions, although FAT and NTFS end their first sector as an MBR does.
  @Test(arguments: [
    ["mkfs.vfat", "-F", "12"], ["mkfs.vfat", "-F", "16"], ["mkfs.vfat", "-F", "32"],
    ["mkfs.vfat", "--mbr=y"],
    ["mkfs.ntfs", "-q", "-F"], ["mkfs.exfat"], ["mkfs.ext4", "-q"],
  ])
  func fileSystemIsNoTable(_ command: [String]) throws {
    try TemporaryFolder.with { folder in
      let disk = try DiskTool.makeDisk("disk", byteCount: 9 << 20, in: folder)
      try DiskTool.run(command[0], Array(command[1...]) + [disk], in: folder)
      #expect(try PartitionTable.read(file: disk) == nil)
    }
  }

  /// Tables of 4096-byte sectors, which sfdisk makes on a device only.
  @Test(.enabled(if: DiskTool.hasLoopDevices), arguments: ["gpt", "dos"])
  func sectorsOf4096BytesAreFoundOut(_ label: String) throws {
    try TemporaryFolder.with { folder in
      let disk = try DiskTool.makeDisk("disk", byteCount: byteCount, in: folder)
      let made = try DiskTool.run("losetup", ["-b", "4096", "-f", "--show", disk], in: folder)
      let device = String(made.stdoutText.dropLast())
      defer { _ = try? DiskTool.run("losetup", ["-d", device], in: folder) }
      let extended =
        label == "dos" ? "start=2048, size=10000, type=5\nstart=3000, size=500\nstart=4000, size=700\n" : ""
      try DiskTool.run(
        "sfdisk", ["--quiet", "--no-tell-kernel", device],
        input: "label: \(label)\nstart=512, size=1024\n" + extended, in: folder)
      let judged = try DiskTool.sfdiskTable(device, in: folder)
      try DiskTool.run("blockdev", ["--flushbufs", device], in: folder)
      let table = try #require(try PartitionTable.read(file: disk))
      #expect(table.sectorByteCount == 4096)
      #expect(table.places == judged.rows.map { [UInt64($0.number), $0.start, $0.count] })
      #expect(table.partitions.count == (label == "dos" ? 4 : 1))
    }
  }
}

extension DiskTool {
  /// Whether loop devices can be made: as root, where the machine has them.
  static let hasLoopDevices = geteuid() == 0 && Files.exists("/dev/loop-control")
}
