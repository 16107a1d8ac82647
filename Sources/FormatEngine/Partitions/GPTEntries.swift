/// A sound GUID partition table: a header, and the entries that it sums up.
///
/// An entry (UEFI specification, "GPT Partition Entry Array"):
///
///      0 - 15  GUID of the type, zero: not used     40 -  47  last sector
///     16 - 31  GUID of the partition                48 -  55  attributes
///     32 - 39  first sector                         56 - 127  name, UTF-16
struct GPTEntries: Sendable {
  let header: GPTHeader
  let sectorByteCount: UInt64
  private let bytes: [UInt8]

  private static let bootableAttribute: UInt64 = 1 << 2
  private static let nameUnitCount = 36

  /// - Throws: `notThisFormat` or `corrupt` with the reason why the table in this sector is not to be believed.
  static func read(_ disk: DiskWindow, sector: UInt64, sectorByteCount: UInt64) throws(EngineError)
    -> GPTEntries
  {
    let offset = try sector.multiplied(by: sectorByteCount, orCorrupt: "its place")
    let header = try GPTHeader.parse(
      try disk.bytes(at: offset, count: Int(sectorByteCount)), at: sector)
    let entriesOffset = try header.entriesSector.multiplied(
      by: sectorByteCount, orCorrupt: "the place of its entries")
    let bytes = try disk.bytes(at: entriesOffset, count: header.entriesByteCount)
    guard CRC32.checksum(of: bytes) == header.entriesChecksum else {
      throw .corrupt("the checksum of its entries is wrong")
    }
    return GPTEntries(header: header, sectorByteCount: sectorByteCount, bytes: bytes)
  }

  func table(of disk: DiskWindow, findings: [String]) -> PartitionTable {
    var list = PartitionList(disk, sectorByteCount: sectorByteCount, findings: findings)
    if header.lastUsableSector >= disk.byteCount / sectorByteCount {
      list.note("The GPT is that of a larger disk")
    }
    // The entries are as long as the header says: no read leaves them.
    try? bytes.parsed { (span) throws(EngineError) in
      for index in 0..<header.entryCount {
        try Self.add(span, at: index * header.entryByteCount, number: index + 1, to: &list)
      }
    }
    let (partitions, findings) = list.finish()
    return PartitionTable(
      scheme: .gpt, sectorByteCount: sectorByteCount, uuid: header.diskID, partitions: partitions,
      findings: findings)
  }

  private static func add(_ entries: RawSpan, at offset: Int, number: Int, to list: inout PartitionList)
    throws(EngineError)
  {
    let typeBits = try entries.littleEndian(UInt64.self, at: offset)
    guard try typeBits | entries.littleEndian(UInt64.self, at: offset + 8) != 0 else { return }
    let first = try entries.littleEndian(UInt64.self, at: offset + 32)
    let last = try entries.littleEndian(UInt64.self, at: offset + 40)
    guard last >= first else {
      return list.note("Partition \(number) ends before it starts: it is left out")
    }
    let attributes = try entries.littleEndian(UInt64.self, at: offset + 48)
    let name = IdentifierText.text(
      utf16: try entries.utf16Units(at: offset + 56, count: nameUnitCount))
    let partition = Partition(
      number: number, start: 0, byteCount: 0,
      type: IdentifierText.guid(try entries.bytes(in: offset..<offset + 16)) ?? "",
      uuid: IdentifierText.guid(try entries.bytes(in: offset + 16..<offset + 32)),
      name: name.isEmpty ? nil : name, attributes: attributes,
      isBootable: attributes & bootableAttribute != 0)
    let (count, isWhole) = (last &- first).addingReportingOverflow(1)
    list.add(partition, firstSector: first, sectorCount: isWhole ? .max : count)
  }
}
