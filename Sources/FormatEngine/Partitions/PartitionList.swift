/// Partitions and findings while a table is read: from sectors to bytes of the disk.
struct PartitionList {
  let diskByteCount: UInt64
  let sectorByteCount: UInt64
  private(set) var partitions: [Partition] = []
  private(set) var findings: [String]
  private var omittedFindingCount = 0

  /// More than what any real table has wrong with it: thousands of entries may each be.
  private static let maximumFindingCount = 50

  init(_ disk: DiskWindow, sectorByteCount: UInt64, findings: [String]) {
    // A sector of which the disk has a part only is none.
    diskByteCount = disk.byteCount.aligned(downTo: sectorByteCount)
    self.sectorByteCount = sectorByteCount
    self.findings = findings
  }

  mutating func note(_ finding: String) {
    if findings.count < Self.maximumFindingCount {
      findings.append(finding)
    } else {
      omittedFindingCount += 1
    }
  }

  /// Takes a partition in, if any of it is on the disk. `start` and `byteCount` of what is given are set here.
  ///
  /// - Parameters:
  ///   - firstSector: of the disk.
  ///   - sectorCount: more than 0.
  mutating func add(_ partition: Partition, firstSector: UInt64, sectorCount: UInt64) {
    let number = partition.number
    let (start, isFar) = firstSector.multipliedReportingOverflow(by: sectorByteCount)
    guard !isFar, start < diskByteCount else {
      return note("Partition \(number) lies past the end of the disk: it is left out")
    }
    let (byteCount, isHuge) = sectorCount.multipliedReportingOverflow(by: sectorByteCount)
    let room = diskByteCount - start
    if isHuge || byteCount > room { note("Partition \(number) reaches past the end of the disk: it is cut") }
    var partition = partition
    partition.start = start
    partition.byteCount = isHuge ? room : min(byteCount, room)
    partitions.append(partition)
  }

  /// The partitions, and what was found with a look at all of them.
  mutating func finish() -> (partitions: [Partition], findings: [String]) {
    noteOverlaps()
    if omittedFindingCount > 0 { findings.append("There are \(omittedFindingCount) more such findings") }
    return (partitions, findings)
  }

  /// An extended partition overlaps those in it, as it should.
  private mutating func noteOverlaps() {
    var furthest: Partition?
    for partition in partitions.filter({ !$0.isExtended }).sorted(by: {
      ($0.start, $0.number) < ($1.start, $1.number)
    }) {
      if let furthest, partition.start < furthest.end {
        let numbers = [furthest.number, partition.number].sorted()
        note("Partitions \(numbers[0]) and \(numbers[1]) overlap")
      }
      if partition.end > furthest?.end ?? 0 { furthest = partition }
    }
  }
}
