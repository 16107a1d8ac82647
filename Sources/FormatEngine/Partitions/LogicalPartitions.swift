/// The chain of an MBR's logical partitions. Each sector of it has an entry for a partition, whose place counts from
/// that sector, and an entry that leads to the next one, whose place counts from the start of the extended partition.
///
/// As Linux has it: four entries are looked at, the last two only where what they say lies inside; the first that leads on
/// is followed; those without a partition take no number.
struct LogicalPartitions {
  private let disk: DiskWindow
  private let mbr: MBRSector
  private let sectorByteCount: UInt64
  /// Of the next one.
  private var number = 5
  /// Sectors that were looked at.
  private var seen: Set<UInt64> = []

  /// What Linux has room for; sfdisk makes 60 at most.
  private static let lastNumber = 255
  /// Links that have no partition, all together: as many as Linux follows in a row. Each may cost unpacking a cluster.
  private static let maximumEmptyLinkCount = 100

  init(_ disk: DiskWindow, _ mbr: MBRSector, sectorByteCount: UInt64) {
    self.disk = disk
    self.mbr = mbr
    self.sectorByteCount = sectorByteCount
  }

  /// Takes in what is in the extended partition that an entry of the MBR describes.
  mutating func follow(_ extended: MBRSector.Entry, into list: inout PartitionList) {
    let room = extended.firstSector..<extended.firstSector + extended.sectorCount
    var (sector, length) = (extended.firstSector, extended.sectorCount)
    var emptyLinkCount = 0
    while true {
      guard seen.insert(sector).inserted else {
        return list.note("The chain of logical partitions comes back to sector \(sector)")
      }
      guard let entries = entries(at: sector) else {
        return list.note("The chain of logical partitions ends in sector \(sector), where there is no table")
      }
      let numberBefore = number
      for (index, entry) in entries.enumerated() where entry.isUsed && !entry.isExtended {
        let first = sector + entry.firstSector
        let isInside = room.contains(first) && first + entry.sectorCount <= room.upperBound
        // The third and the fourth have no meaning, and may hold anything.
        if index >= 2, !isInside || entry.firstSector + entry.sectorCount > length { continue }
        guard number <= Self.lastNumber else {
          return list.note("There are more logical partitions than Linux has numbers for")
        }
        if !isInside { list.note("Partition \(number) is not inside of its extended partition") }
        list.add(
          MBRReader.partition(entry, number: number, of: mbr), firstSector: first,
          sectorCount: entry.sectorCount)
        number += 1
      }
      if number == numberBefore { emptyLinkCount += 1 }
      guard emptyLinkCount <= Self.maximumEmptyLinkCount else {
        return list.note("The chain of logical partitions has too many links without one")
      }
      guard let link = entries.first(where: { $0.isUsed && $0.isExtended }) else { return }
      (sector, length) = (extended.firstSector + link.firstSector, link.sectorCount)
      guard room.contains(sector) else {
        return list.note("The chain of logical partitions leaves its extended partition")
      }
    }
  }

  /// Sums of numbers of 32 bits and a sector size: nothing overflows.
  private func entries(at sector: UInt64) -> [MBRSector.Entry]? {
    guard let bytes = try? disk.bytes(at: sector * sectorByteCount, count: MBRSector.byteCount) else {
      return nil
    }
    return (try? MBRSector.entries(of: bytes)) ?? nil
  }
}
