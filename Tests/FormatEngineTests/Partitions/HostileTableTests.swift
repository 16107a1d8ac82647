import Foundation
import TestSupport
import Testing

@testable import FormatEngine

/// Tables that no program makes.
@Suite struct HostileTableTests {
  private let sectors: UInt64 = 100_000
  private var byteCount: UInt64 { sectors * 512 }

  private func readMBR(_ entries: [HandMadeMBREntry], _ links: [UInt64: [HandMadeMBREntry]] = [:]) throws
    -> PartitionTable
  {
    var pieces: [DiskPiece] = [(0, HandMadeMBREntry.sector(entries))]
    for (sector, link) in links { pieces.append((sector * 512, HandMadeMBREntry.sector(link))) }
    return try #require(try PartitionTable.read(byteCount: byteCount, pieces))
  }

  private func linux(_ first: UInt32, _ count: UInt32) -> HandMadeMBREntry {
    .init(type: 0x83, first: first, count: count)
  }
  private func extended(_ first: UInt32, _ count: UInt32) -> HandMadeMBREntry {
    .init(type: 5, first: first, count: count)
  }

  // MARK: Chains of logical partitions

  @Test func loopInTheChainIsCut() throws {
    let table = try readMBR(
      [extended(1000, 50000)],
      [1000: [linux(10, 20), extended(100, 50)], 1100: [linux(10, 20), extended(0, 50)]])
    #expect(table.places == [[1, 1000, 50000], [5, 1010, 20], [6, 1110, 20]])
    #expect(table.findings == ["The chain of logical partitions comes back to sector 1000"])
  }

  @Test func linkToItselfIsCut() throws {
    let table = try readMBR([extended(1000, 50000)], [1000: [linux(10, 20), extended(0, 9)]])
    #expect(table.places == [[1, 1000, 50000], [5, 1010, 20]])
  }

  @Test func linkOutOfTheExtendedPartitionIsNotFollowed() throws {
    let table = try readMBR(
      [extended(1000, 500), linux(3000, 10)],
      [1000: [linux(10, 20), extended(600, 50)], 1600: [linux(10, 20)]])
    #expect(table.places == [[1, 1000, 500], [2, 3000, 10], [5, 1010, 20]])
    #expect(table.findings == ["The chain of logical partitions leaves its extended partition"])
  }

  @Test func chainPastTheEndOfTheDiskEnds() throws {
    let table = try readMBR([extended(1000, .max)], [1000: [linux(10, 20), extended(4_000_000, 50)]])
    #expect(table.places == [[1, 1000, 99000], [5, 1010, 20]])
    #expect(table.findings.count == 2)
  }

  @Test func logicalPartitionOutsideOfItsExtendedOneIsShown() throws {
    let table = try readMBR([extended(1000, 500)], [1000: [linux(10, 9000)]])
    #expect(table.places == [[1, 1000, 500], [5, 1010, 9000]])
    #expect(table.findings == ["Partition 5 is not inside of its extended partition"])
  }

  @Test func thousandsOfLinksTakeNoTime() throws {
    var links: [UInt64: [HandMadeMBREntry]] = [:]
    for index in 0..<UInt32(2000) {
      links[1000 + UInt64(index) * 10] = [linux(1, 1), extended((index + 1) * 10, 10)]
    }
    let table = try readMBR([extended(1000, 50000)], links)
    #expect(table.partitions.last?.number == 255)
    #expect(table.findings == ["There are more logical partitions than Linux has numbers for"])
    for index in links.keys { links[index]?[0] = .unused }
    #expect(try readMBR([extended(1000, 50000)], links).findings.count == 1)
  }

  /// However they lie among partitions: each may cost unpacking a cluster.
  @Test func linksWithoutPartitionsAreCounted() throws {
    var links: [UInt64: [HandMadeMBREntry]] = [:]
    for index in 0..<UInt32(2000) {
      let entry = index.isMultiple(of: 50) ? linux(1, 1) : .unused
      links[1000 + UInt64(index) * 10] = [entry, extended((index + 1) * 10, 10)]
    }
    let table = try readMBR([extended(1000, 50000)], links)
    #expect(table.places.map(\.[0]) == [1, 5, 6, 7])
    #expect(table.findings == ["The chain of logical partitions has too many links without one"])
  }

  /// What Linux makes of tables that are odd but not wrong, with partx as the judge: stray entries of a link (the last two
  /// count where what they say is inside), links without partitions, the link first, two extended partitions, no type, no
  /// signature.
  @Test(arguments: 0..<6) func oddTablesAreAsForLinux(_ index: Int) throws {
    let stray: [UInt64: [HandMadeMBREntry]] = [
      0: [linux(10, 0), extended(1000, 5000), linux(70_000, 5), extended(20_000, 5000)],
      1000: [linux(10, 20), linux(50, 20), linux(90, 20), linux(60_000, 20)],
      20_000: [.unused, .unused, extended(100, 1000), linux(5, 5)],
      20_100: [.unused, extended(0, 0), linux(7, 7), .unused],
    ]
    let tables: [[UInt64: [HandMadeMBREntry]]] = [
      stray,
      [0: [extended(1000, 1000)], 1000: [linux(10, 0), extended(100, 10)], 1100: [linux(10, 10)]],
      [0: [extended(1000, 1000)], 1000: [extended(100, 10), linux(10, 5)], 1100: [linux(10, 10)]],
      [
        0: [extended(1000, 1000), .init(type: 0xf, first: 5000, count: 1000)], 1000: [linux(10, 10)],
        5000: [linux(10, 10)],
      ],
      [0: [.init(type: 0, first: 100, count: 50), .unused, linux(200, 5), linux(300, 0)]],
      [0: [linux(100, 50), linux(200, 50)]],
    ]
    try TemporaryFolder.with { folder in
      var bytes = [UInt8](repeating: 0, count: Int(byteCount))
      for (sector, entries) in tables[index] {
        let start = Int(sector) * 512
        let content = HandMadeMBREntry.sector(entries, signature: index == 5 ? 0 : 0x12ab_0034)
        bytes.replaceSubrange(start..<start + 512, with: content)
      }
      let disk = try folder.write(bytes, to: "disk")
      let table = try #require(try PartitionTable.read(file: disk))
      let judged = try DiskTool.partxRows(disk, sectorByteCount: 512, in: folder)
      #expect(table.places == judged.map { [UInt64($0.number), $0.start, $0.count] })
      #expect(table.partitions.map { $0.uuid ?? "" } == judged.map(\.uuid))
    }
  }

  // MARK: Places and sizes

  @Test func overlapsAreFindings() throws {
    let table = try readMBR([linux(100, 1000), linux(500, 10), linux(1000, 500), linux(1500, 10)])
    #expect(table.partitions.count == 4)
    #expect(table.findings == ["Partitions 1 and 2 overlap", "Partitions 1 and 3 overlap"])
  }

  @Test func whatLiesPastTheEndIsCutOrLeftOut() throws {
    let table = try readMBR([linux(99_999, 1000), linux(100_000, 10), linux(.max, .max), linux(5, 0)])
    #expect(table.places == [[1, 99_999, 1]])
    #expect(table.findings.count == 3)
  }

  @Test(arguments: [0, 1, 511, 512, 513, 1023, 1024, 4095, 4096, 8192, UInt64(Int64.max), 1 << 63, .max])
  func diskOfAnySizeIsRead(_ byteCount: UInt64) throws {
    let gpt = HandMadeGPT(
      sectorCount: 10000, entries: [.init(first: 1, last: .max), .init(first: .max, last: .max)])
    let pieces = HandMadeGPT.protectiveMBR + gpt.pieces
    let table = try PartitionTable.read(byteCount: byteCount, pieces)
    #expect(table == nil || byteCount >= 512)
    for partition in table?.partitions ?? [] {
      #expect(partition.start < byteCount && partition.byteCount > 0)
    }
    #expect(
      try PartitionTable.read(byteCount: byteCount, [(0, HandMadeMBREntry.sector([linux(1, .max)]))]) != nil
        || byteCount < 512)
    #expect(try PartitionTable.read(byteCount: byteCount, []) == nil)
    for size: UInt64 in [512, 4096] {
      _ = try PartitionTable.read(byteCount: byteCount, pieces, sectorByteCount: size)
    }
    #expect(FileSystemIdentity.find(in: try DiskWindow(PiecedDisk(byteCount: byteCount, pieces))) == nil)
  }

  @Test(arguments: [0, 1, 500, 513, 8192, UInt64.max]) func impossibleSectorSizeIsRefused(_ size: UInt64) {
    #expect(throws: EngineError.self) {
      try PartitionTable.read(byteCount: 1 << 20, [], sectorByteCount: size)
    }
  }

  @Test func numbersOf64BitsAreChecked() throws {
    let extremes: [UInt64] = [
      0, 1, 33, sectors - 1, sectors, .max / 512, .max / 512 + 1, .max / 2, .max - 1, .max,
    ]
    let entries = extremes.flatMap { first in extremes.map { HandMadeGPT.Entry(first: first, last: $0) } }
    let gpt = HandMadeGPT(sectorCount: sectors, entries: entries)
    let table = try #require(
      try PartitionTable.read(byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces))
    for partition in table.partitions {
      let entry = entries[partition.number - 1]
      #expect(partition.start == entry.first * 512 && entry.first < sectors)
      #expect(partition.byteCount == (min(entry.last, sectors - 1) - entry.first + 1) * 512)
    }
    #expect(table.partitions.count == entries.count { $0.first < sectors && $0.last >= $0.first })
    #expect(table.findings.count == 51)
    #expect(table.findings.last?.hasPrefix("There are ") == true)
  }

  // MARK: Headers

  private func damage(_ change: (inout HandMadeGPT) -> Void) throws -> [String] {
    var gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50)])
    change(&gpt)
    let table = try #require(
      try PartitionTable.read(byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces))
    return table.scheme == .gpt ? ["read"] : table.findings
  }

  @Test func impossibleHeaderIsRefusedInWords() throws {
    func reason(_ change: (inout HandMadeGPT) -> Void) throws -> String {
      let findings = try damage(change)
      #expect(findings.count == 1)
      return String(findings[0].dropFirst("The primary GPT is damaged (".count).prefix { $0 != ")" })
    }
    for size: UInt32 in [0, 1, 91, 513, 65535, .max] {
      #expect(try reason { $0.headerByteCount = size } == "a header of \(size) bytes is impossible")
    }
    for size: UInt32 in [0, 1, 64, 127, 129, 384, 8192, .max] {
      #expect(try reason { $0.entryByteCount = size } == "entries of \(size) bytes are impossible")
    }
    for count: UInt32 in [0, 8193, 1 << 24, .max] {
      #expect(try reason { $0.entryCount = count } == "\(count) entries are impossible")
    }
    #expect(try reason { $0.headerChecksumError = 1 } == "its checksum is wrong")
    #expect(try reason { $0.entriesChecksumError = 1 } == "the checksum of its entries is wrong")
    #expect(try reason { $0.entriesSector = .max } == "the place of its entries is out of range")
    #expect(try reason { $0.entriesSector = sectors } == "The bytes lie past the end of the disk")
    #expect(try reason { $0.entryCount = 8192 } == "the checksum of its entries is wrong")
    // In sector 1, but it says that it is in another one.
    var gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50)])
    gpt.sector = 7
    let pieces = HandMadeGPT.protectiveMBR + [(512, gpt.header)] + gpt.pieces.dropFirst()
    #expect(
      try PartitionTable.read(byteCount: byteCount, pieces)?.findings.first?.contains(
        "it says that it is in sector 7") == true)
  }

  @Test(arguments: [92, 128, 512]) func headerOfAnyPossibleSizeIsRead(_ size: UInt32) throws {
    #expect(try damage { $0.headerByteCount = size } == ["read"])
  }

  @Test(arguments: [128, 256, 4096]) func entriesOfAnyPossibleSizeAreRead(_ size: UInt32) throws {
    #expect(try damage { $0.entryByteCount = size } == ["read"])
  }

  @Test func mostEntriesAreRead() throws {
    let entries = (0..<UInt64(8192)).map { HandMadeGPT.Entry(first: 3000 + $0, last: 3000 + $0) }
    let gpt = HandMadeGPT(sectorCount: sectors, entries: entries)
    let table = try #require(
      try PartitionTable.read(byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces))
    #expect(table.partitions.count == 8192 && table.partitions.last?.start == 11191 * 512)
  }

  /// What a damaged primary header says of the other one is tried; anything else it says is not believed.
  @Test(arguments: [0, 1, 99_999, 100_000, UInt64.max]) func placeOfTheBackupMayBeAnything(_ other: UInt64)
    throws
  {
    var gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50)])
    (gpt.otherSector, gpt.headerChecksumError) = (other, 1)
    let pieces = HandMadeGPT.protectiveMBR + gpt.pieces
    #expect(try PartitionTable.read(byteCount: byteCount, pieces)?.scheme == .mbr)
    gpt.headerChecksumError = 0
    #expect(
      try PartitionTable.read(byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces)?.places == [
        [1, 40, 11]
      ])
  }

  @Test func backupIsFoundWhereADamagedPrimaryNamesIt() throws {
    var gpt = HandMadeGPT(sectorCount: 5000, entries: [.init(first: 40, last: 50)])
    let backup = gpt.backup(in: 4999)
    gpt.headerChecksumError = 1
    let table = try PartitionTable.read(
      byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces + backup.pieces)
    #expect(table?.places == [[1, 40, 11]])
  }

  // MARK: Names

  @Test(
    arguments: [
      ([0xd800, 0x41], "\u{fffd}A"), ([0x41, 0xdc00], "A\u{fffd}"), ([0xd83d, 0xde00], "😀"),
      ([0x41, 0, 0x42], "A"),
      ([0x2f, 0x2e, 0x2e, 0x0a, 0x202e], "/..\n\u{202e}"),
      (Array(repeating: 0x20ac, count: 36), String(repeating: "€", count: 36)),
    ] as [([UInt16], String)])
  func hostileNameIsText(_ units: [UInt16], _ expected: String) throws {
    let gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50, name: units)])
    let table = try #require(
      try PartitionTable.read(byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces))
    #expect(table.partitions.map(\.name) == [expected])
  }

  @Test func emptyNameIsNone() throws {
    for units: [UInt16] in [[], [0, 0x41]] {
      let gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50, name: units)])
      let table = try PartitionTable.read(byteCount: byteCount, HandMadeGPT.protectiveMBR + gpt.pieces)
      #expect(table?.partitions.map(\.name) == [nil])
    }
  }

  // MARK: Which table counts

  @Test func gptWithoutAnEntryInTheMBRDoesNotCount() throws {
    let gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50)])
    let table = try PartitionTable.read(
      byteCount: byteCount, [(0, HandMadeMBREntry.sector([linux(63, 100)]))] + gpt.pieces)
    #expect(table?.places == [[1, 63, 100]])
    #expect(table?.findings == ["The disk has a GPT, but the MBR does not say so: it is not used"])
  }

  @Test func gptWithoutAnMBRCountsUnlessAFileSystemLiesOverIt() throws {
    let gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50)])
    let table = try PartitionTable.read(byteCount: byteCount, gpt.pieces + gpt.backup(in: sectors - 1).pieces)
    #expect(table?.places == [[1, 40, 11]])
    #expect(table?.findings == ["The disk has a GPT, but no MBR that protects it"])
    var swap = [UInt8](repeating: 0, count: 3072)
    (swap[0], swap[4]) = (1, 9)
    swap.replaceSubrange(3062..., with: Array("SWAPSPACE2".utf8))
    // The last page of the header of swap space; the GPT's entries lie behind it.
    var moved = gpt
    moved.entriesSector = 20
    #expect(try PartitionTable.read(byteCount: byteCount, moved.pieces + [(1024, swap)]) == nil)
  }

  @Test func entriesThatAreNoneMakeNoMBR() throws {
    var sector = HandMadeMBREntry.sector([linux(63, 100), linux(200, 10)])
    sector[446 + 16] = 0x12
    #expect(try PartitionTable.read(byteCount: byteCount, [(0, sector)]) == nil)
  }

  // MARK: Reading fails

  @Test func unreadablePrimaryIsADamagedOne() throws {
    let gpt = HandMadeGPT(sectorCount: sectors, entries: [.init(first: 40, last: 50)])
    let pieces = HandMadeGPT.protectiveMBR + gpt.pieces + gpt.backup(in: sectors - 1).pieces
    func read(without bad: Range<UInt64>) throws -> PartitionTable? {
      try .read(DiskWindow(PiecedDisk(byteCount: byteCount, pieces, unreadable: bad)))
    }
    let table = try #require(try read(without: 512..<1024))
    #expect(table.places == [[1, 40, 11]])
    #expect(table.findings == ["The primary GPT is damaged (Unreadable): the backup in sector 99999 is used"])
    #expect(throws: EngineError.self) { try read(without: 0..<1) }
  }
}
