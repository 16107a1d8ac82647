/// FAT12, FAT16 and FAT32: the boot sector (Microsoft's FAT specification, "BPB"). Little-endian.
///
///     11 - 12  bytes of a sector          FAT12, FAT16:           FAT32:
///     13       sectors of a cluster       38       28 or 29       36 - 39  sectors of a FAT
///     14 - 15  sectors before the FATs    39 - 42  serial number  44 - 47  cluster of the root folder
///     16       FATs                       43 - 53  label          66       28 or 29
///     17 - 18  entries of the root        54 - 61  "FAT16   "     67 - 70  serial number
///     19 - 20  sectors, 0: see 32                                 82 - 89  "FAT32   "
///     21       medium
///     22 - 23  sectors of a FAT, 0: FAT32
///     32 - 35  sectors
///
/// The label counts that is an entry in the root folder, as for blkid; the one in the boot sector may be an old one.
struct FATVolume: FileSystemSignature {
  private let sectorByteCount: UInt64
  private let clusterByteCount: UInt64
  /// Of the first FAT, of the folder that follows the FATs, of the first cluster; in bytes.
  private let tableStart: UInt64
  private let rootStart: UInt64
  private let dataStart: UInt64
  /// Entries of the folder behind the FATs, 0 in FAT32.
  private let rootEntryCount: Int
  private let rootCluster: UInt32?
  private let serial: UInt32?

  /// FAT16 has at most 65524 clusters, FAT32 2^28 - 12.
  private static let maximumFAT16ClusterCount: UInt64 = 0xfff4
  private static let maximumFAT32ClusterCount: UInt64 = 0x0fff_fff4
  private static let entryByteCount = 32
  /// The label is one of the first entries of a root folder.
  private static let maximumRootByteCount = 64 * KiB

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    guard let volume = try FATVolume(window) else { return nil }
    // A root folder that cannot be read has no label.
    let label = (try? volume.label(window)) ?? nil
    return FileSystemIdentity(
      type: "vfat", label: label, uuid: volume.serial.map(IdentifierText.volumeSerial))
  }

  /// Nil where it is no such boot sector.
  private init?(_ window: DiskWindow) throws(EngineError) {
    let bytes = try window.bytes(at: 0, count: 512)
    let volume = try bytes.parsed { (span) throws(EngineError) -> FATVolume? in try FATVolume(span) }
    guard let volume else { return nil }
    self = volume
  }

  private init?(_ span: RawSpan) throws(EngineError) {
    let sectorByteCount = UInt64(try span.littleEndian(UInt16.self, at: 11))
    let clusterSectorCount = UInt64(try span.littleEndian(UInt8.self, at: 13))
    let tableCount = UInt64(try span.littleEndian(UInt8.self, at: 16))
    let reservedSectorCount = UInt64(try span.littleEndian(UInt16.self, at: 14))
    let medium = try span.littleEndian(UInt8.self, at: 21)
    guard sectorByteCount.isPowerOfTwo, (512...4096).contains(sectorByteCount),
      clusterSectorCount.isPowerOfTwo,
      tableCount > 0, reservedSectorCount > 0, medium >= 0xf8 || medium == 0xf0
    else { return nil }
    let shortTable = UInt64(try span.littleEndian(UInt16.self, at: 22))
    let isFAT32 = shortTable == 0
    guard try Self.isNamed(span, isFAT32: isFAT32) else { return nil }
    let tableSectorCount = isFAT32 ? UInt64(try span.littleEndian(UInt32.self, at: 36)) : shortTable
    let shortCount = UInt64(try span.littleEndian(UInt16.self, at: 19))
    let sectorCount = shortCount == 0 ? UInt64(try span.littleEndian(UInt32.self, at: 32)) : shortCount
    rootEntryCount = Int(try span.littleEndian(UInt16.self, at: 17))
    let rootSectorCount =
      UInt64(rootEntryCount * Self.entryByteCount).dividedRoundingUp(by: sectorByteCount)
    // Numbers of at most 32 bits times one of 8: nothing overflows.
    let rootSector = reservedSectorCount + tableSectorCount * tableCount
    let dataSector = rootSector + rootSectorCount
    guard tableSectorCount > 0, dataSector < sectorCount else { return nil }
    let clusterCount = (sectorCount - dataSector) / clusterSectorCount
    guard clusterCount <= (isFAT32 ? Self.maximumFAT32ClusterCount : Self.maximumFAT16ClusterCount) else {
      return nil
    }
    self.sectorByteCount = sectorByteCount
    clusterByteCount = clusterSectorCount * sectorByteCount
    tableStart = reservedSectorCount * sectorByteCount
    rootStart = rootSector * sectorByteCount
    dataStart = dataSector * sectorByteCount
    rootCluster = isFAT32 ? try span.littleEndian(UInt32.self, at: 44) : nil
    let extended = isFAT32 ? 66 : 38
    let hasSerial = [0x28, 0x29].contains(try span.littleEndian(UInt8.self, at: extended))
    serial = hasSerial ? try span.littleEndian(UInt32.self, at: extended + 1) : nil
  }

  /// Whether it says that it is a FAT: the code of an MBR may look like the rest. Without a name there have to be the two
  /// bytes at the end, a jump at the start and no entries of an MBR.
  private static func isNamed(_ span: RawSpan, isFAT32: Bool) throws(EngineError) -> Bool {
    let name = try span.bytes(in: isFAT32 ? 82..<90 : 54..<62)
    if ["FAT12   ", "FAT16   ", "FAT     ", "FAT32   ", "MSDOS   ", "MSWIN   "].contains(
      String(hostBytes: name))
    {
      return true
    }
    let jump = try span.littleEndian(UInt8.self, at: 0)
    guard try span.littleEndian(UInt16.self, at: 510) == 0xaa55, jump == 0xeb || jump == 0xe9 else {
      return false
    }
    return try span.bytes(in: 446..<510).allSatisfy { $0 == 0 }
  }

  // MARK: Label

  private func label(_ window: DiskWindow) throws(EngineError) -> String? {
    guard var cluster = rootCluster else {
      let count = min(rootEntryCount * Self.entryByteCount, Int(Self.maximumRootByteCount))
      return try Self.label(in: window.bytes(at: rootStart, count: count)).label
    }
    // A damaged folder may be a loop, and its clusters large.
    var left = Self.maximumRootByteCount
    while left > 0 {
      guard cluster >= 2, UInt64(cluster) <= Self.maximumFAT32ClusterCount else { return nil }
      let place = dataStart + UInt64(cluster - 2) * clusterByteCount
      let count = min(left, clusterByteCount)
      left -= count
      let found = Self.label(in: try window.bytes(at: place, count: Int(count)))
      if found.label != nil || found.isEnd { return found.label }
      cluster = try window.parsed(at: tableStart + UInt64(cluster) * 4, count: 4) {
        (span) throws(EngineError) in
        try span.littleEndian(UInt32.self, at: 0) & 0x0fff_ffff
      }
    }
    return nil
  }

  /// The label among the entries of a folder, and whether the folder ends with these.
  private static func label(in entries: [UInt8]) -> (label: String?, isEnd: Bool) {
    for offset in stride(from: 0, to: entries.count - entryByteCount + 1, by: entryByteCount) {
      let (first, attributes) = (entries[offset], entries[offset + 11])
      if first == 0 { return (nil, true) }
      let hasCluster = [20, 21, 26, 27].contains { entries[offset + $0] != 0 }
      // Deleted; part of a long name; a label, not a folder.
      if first == 0xe5 || attributes & 0x3f == 0x0f || attributes & 0x18 != 0x08 || hasCluster { continue }
      var name = Array(entries[offset..<offset + 11])
      // E5 at the start of a name would delete it.
      if name[0] == 0x05 { name[0] = 0xe5 }
      return (IdentifierText.label(name), true)
    }
    return (nil, false)
  }
}
