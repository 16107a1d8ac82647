/// Reads the partitions of an MBR, primary and logical ones.
struct MBRReader {
  private let disk: DiskWindow
  private let mbr: MBRSector
  private let sectorByteCount: UInt64

  /// - Parameter sectorByteCounts: those that may be, the likelier one first.
  init(_ disk: DiskWindow, _ mbr: MBRSector, _ sectorByteCounts: [UInt64]) {
    self.disk = disk
    self.mbr = mbr
    sectorByteCount = Self.sectorByteCount(disk, mbr, sectorByteCounts)
  }

  func table(findings: [String]) -> PartitionTable {
    var list = PartitionList(disk, sectorByteCount: sectorByteCount, findings: findings)
    for (index, entry) in mbr.entries.enumerated() where entry.isUsed && !entry.isProtective {
      list.add(
        Self.partition(entry, number: index + 1, of: mbr), firstSector: entry.firstSector,
        sectorCount: entry.sectorCount)
    }
    var chain = LogicalPartitions(disk, mbr, sectorByteCount: sectorByteCount)
    for entry in mbr.entries where entry.isUsed && entry.isExtended { chain.follow(entry, into: &list) }
    let (partitions, findings) = list.finish()
    return PartitionTable(
      scheme: .mbr, sectorByteCount: sectorByteCount, uuid: mbr.uuid, partitions: partitions,
      findings: findings)
  }

  /// What an entry says, without its place.
  static func partition(_ entry: MBRSector.Entry, number: Int, of mbr: MBRSector) -> Partition {
    Partition(
      number: number, start: 0, byteCount: 0, type: "0x" + String(entry.type, radix: 16),
      uuid: mbr.uuid.map { "\($0)-\(IdentifierText.hexadecimal(UInt64(number), 2))" },
      isBootable: entry.bootIndicator == 0x80, isExtended: entry.isExtended)
  }

  /// The table does not say it. The first size holds, unless only another one leads to something.
  private static func sectorByteCount(_ disk: DiskWindow, _ mbr: MBRSector, _ sizes: [UInt64]) -> UInt64 {
    let first = sizes.first ?? 512
    let leading = sizes.first { size in
      mbr.entries.contains { $0.isUsed && !$0.isProtective && leads($0, on: disk, sectorByteCount: size) }
    }
    return leading ?? first
  }

  /// Whether something that is known starts where the entry does.
  private static func leads(_ entry: MBRSector.Entry, on disk: DiskWindow, sectorByteCount: UInt64) -> Bool {
    // Numbers of 32 bits: neither product overflows.
    let (start, byteCount) = (entry.firstSector * sectorByteCount, entry.sectorCount * sectorByteCount)
    guard start > 0, start < disk.byteCount else { return false }
    let window = disk.part(at: start, byteCount: byteCount)
    guard entry.isExtended else { return FileSystemIdentity.find(in: window) != nil }
    guard let sector = try? window.bytes(at: 0, count: MBRSector.byteCount) else { return false }
    return (try? MBRSector.entries(of: sector)) ?? nil != nil
  }
}
