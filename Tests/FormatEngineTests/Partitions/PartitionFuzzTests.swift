import TestSupport
import Testing

@testable import FormatEngine

/// Random damage to tables and to what lies in partitions: whatever is said of them, it is said without a trap, at once,
/// and of bytes that are there.
@Suite struct PartitionFuzzTests {
  /// Any number that a field may have.
  private func number(_ random: inout SeededRandom) -> UInt64 {
    let extremes: [UInt64] = [
      0, 1, 2, 0x7f, 0x80, 0xff, 0xee, 0xffff, 1 << 31, .max >> 32, 1 << 63, .max >> 1, .max - 1, .max,
    ]
    return random.oneIn(2)
      ? extremes[random.below(extremes.count)] : random.next() >> UInt64(random.below(64))
  }

  /// Changes up to four fields of 1, 2, 4 or 8 bytes.
  private func damage(_ bytes: inout [UInt8], in range: Range<Int>, _ random: inout SeededRandom) {
    for _ in 0..<1 + random.below(4) {
      let width = 1 << random.below(4)
      let offset = range.lowerBound + random.below(range.count - width) / width * width
      let value = number(&random)
      for index in 0..<width { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    }
  }

  private func expectSound(_ disk: DiskWindow, _ note: () -> String) throws {
    guard let table = try PartitionTable.read(disk) else { return }
    var numbers: Set<Int> = []
    for partition in table.partitions {
      let isInside =
        partition.start < disk.byteCount && partition.byteCount <= disk.byteCount - partition.start
      if !isInside || partition.byteCount == 0 || !numbers.insert(partition.number).inserted {
        Issue.record("\(note()): \(partition)")
      }
    }
    if table.findings.count > 60 { Issue.record("\(note()): \(table.findings.count) findings") }
  }

  private let byteCount: UInt64 = 4 << 20

  @Test func damagedGPTsAreReadSafely() throws {
    var random = SeededRandom.fromEnvironment(or: 6603)
    let entries = (0..<4).map {
      HandMadeGPT.Entry(first: 40 + $0 * 100, last: 100 + $0 * 100, name: [0x41, 0x42])
    }
    let gpt = HandMadeGPT(sectorCount: byteCount / 512, entries: entries)
    let backup = gpt.backup(in: byteCount / 512 - 1)
    let good = HandMadeMBREntry.sector([.protective]) + gpt.header + gpt.entryBytes
    try Deadline.within(seconds: 60, "\(random)") {
      for round in 0..<Effort.rounds(8000) {
        var bytes = good
        // Half of them have right checksums, so that all the numbers behind those are seen.
        damage(&bytes, in: random.oneIn(4) ? 446..<512 : 512..<good.count, &random)
        if random.oneIn(2) { sum(&bytes) }
        let pieces: [DiskPiece] = [(0, bytes)] + (random.oneIn(2) ? backup.pieces : [])
        try expectSound(DiskWindow(PiecedDisk(byteCount: byteCount, pieces))) {
          "round \(round) of \(random)"
        }
      }
    }
  }

  /// Puts the checksums of entries and header right.
  private func sum(_ bytes: inout [UInt8]) {
    func put(_ value: UInt32, at offset: Int) {
      for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
    }
    put(CRC32.checksum(of: Array(bytes[1024...])), at: 512 + 88)
    put(0, at: 512 + 16)
    put(CRC32.checksum(of: Array(bytes[512..<512 + 92])), at: 512 + 16)
  }

  @Test func damagedMBRsAreReadSafely() throws {
    var random = SeededRandom.fromEnvironment(or: 6604)
    func entry(_ type: UInt8, _ first: UInt32, _ count: UInt32) -> HandMadeMBREntry {
      .init(type: type, first: first, count: count)
    }
    // The links are neighbours, so that one array holds them all.
    let good = [
      [entry(0x83, 100, 50), entry(5, 1, 3), entry(0x82, 200, 50), entry(0x0f, 4, 2)],
      [entry(0x83, 10, 5), entry(5, 1, 2)], [entry(0x83, 20, 5), entry(5, 2, 2)], [entry(0x83, 30, 5)],
      [entry(0x83, 40, 5), entry(0x85, 1, 1)], [entry(0x83, 50, 5)],
    ].flatMap { HandMadeMBREntry.sector($0) }
    try Deadline.within(seconds: 60, "\(random)") {
      for round in 0..<Effort.rounds(8000) {
        var bytes = good
        for _ in 0..<1 + random.below(3) {
          let table = random.below(6) * 512 + 446
          damage(&bytes, in: table..<table + (random.oneIn(20) ? 66 : 64), &random)
        }
        try expectSound(DiskWindow(PiecedDisk(byteCount: byteCount, [(0, bytes)]))) {
          "round \(round) of \(random)"
        }
      }
    }
  }

  @Test func randomBytesAreReadSafely() throws {
    var random = SeededRandom.fromEnvironment(or: 6605)
    for round in 0..<Effort.rounds(2000) {
      var bytes = random.bytes(2048)
      (bytes[510], bytes[511]) = (0x55, 0xaa)
      if random.oneIn(2) { for index in 0..<4 { bytes[446 + 16 * index] = 0 } }
      if random.oneIn(2) { bytes.replaceSubrange(512..<520, with: Array("EFI PART".utf8)) }
      let count = UInt64(random.below(8192))
      try expectSound(DiskWindow(PiecedDisk(byteCount: count, [(0, bytes)]))) {
        "round \(round) of \(random)"
      }
    }
  }

  /// Damage in what the signatures lead to: the boot sector and the folders of FAT, the records of NTFS and so on.
  @Test(arguments: [
    ["mkfs.vfat", "-n", "LABEL"], ["mkfs.vfat", "-F", "32", "-n", "LABEL"],
    ["mkfs.exfat", "-b", "4096", "-c", "4096", "-L", "label"],
    ["mkfs.ntfs", "-q", "-F", "-L", "label"], ["mkfs.ext4", "-q", "-L", "label"], ["mkswap", "-L", "label"],
  ])
  func damagedFileSystemsAreReadSafely(_ command: [String]) throws {
    let good = try TemporaryFolder.with { folder in
      let path = try DiskTool.makeDisk("disk", byteCount: 2 << 20, in: folder)
      try DiskTool.run(command[0], command[1...] + [path], in: folder)
      return try Files.read(path)
    }
    var random = SeededRandom.fromEnvironment(or: 6606)
    let start = command[0] == "mkfs.ext4" || command[0] == "mkswap" ? 1024 : 0
    Deadline.within(seconds: 60, "\(command) \(random)") {
      for _ in 0..<Effort.rounds(400) {
        var bytes = Array(good[start..<start + 512])
        damage(&bytes, in: 11..<(random.oneIn(2) ? 128 : 512), &random)
        var pieces: [DiskPiece] = [(0, good), (UInt64(start), bytes)]
        // What begins the next sectors, as in folders and records.
        let place = 512 * random.below(200)
        if random.oneIn(2) { pieces.append((UInt64(place), random.bytes(64))) }
        let count = random.oneIn(3) ? UInt64(random.below(good.count)) : UInt64(good.count)
        guard let disk = try? DiskWindow(PiecedDisk(byteCount: count, pieces)) else { continue }
        _ = FileSystemIdentity.find(in: disk)
      }
    }
  }
}
