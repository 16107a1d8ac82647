import FormatEngine

/// What a disk says of its partitions, and each partition of what lies in it.
enum PartitionFuzzing {
  private static let maximumPartitionCount = 300

  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let mendsChecksums = input.flag()
    let store = try PackedImage.unpack(&input)
    if mendsChecksums { try ChecksumMender(store: store).mend(format: "raw") }
    let disk = try DiskWindow(store)
    check(FileSystemIdentity.find(in: disk))
    guard let table = try PartitionTable.read(disk) else { return }
    var numbers: Set<Int> = []
    for partition in table.partitions.prefix(maximumPartitionCount) {
      let isInside =
        partition.start < disk.byteCount && partition.byteCount <= disk.byteCount - partition.start
      guard isInside, partition.byteCount > 0, numbers.insert(partition.number).inserted else {
        throw FuzzFinding("A partition that cannot be: \(partition)")
      }
      check(FileSystemIdentity.find(in: disk.part(at: partition.start, byteCount: partition.byteCount)))
    }
    guard table.findings.count <= 100 else { throw FuzzFinding("\(table.findings.count) findings") }
  }

  /// Names are text, whatever the bytes were: it is put together here.
  private static func check(_ identity: FileSystemIdentity?) {
    guard let identity else { return }
    _ = (identity.type + (identity.label ?? "") + (identity.uuid ?? "")).utf8.count
  }
}
