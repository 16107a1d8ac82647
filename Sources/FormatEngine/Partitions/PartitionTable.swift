/// The partitions of a disk, by its GPT or its MBR.
///
/// A damaged table shows what is sound in it: an entry that lies past the end of the disk is left out, one that reaches past
/// it is cut, and `findings` says so. (Linux takes a GPT that says more sectors than there are for no table at all.)
public struct PartitionTable: Equatable, Sendable {
  /// By the names of blkid.
  public enum Scheme: String, Sendable {
    case gpt
    case mbr = "dos"
  }

  public var scheme: Scheme
  /// The unit of the table, in bytes.
  public var sectorByteCount: UInt64
  /// What blkid calls PTUUID: the disk's GUID in a GPT, the signature in an MBR, in lower case.
  public var uuid: String?
  /// By number; no number is there twice.
  public var partitions: [Partition]
  /// What is wrong with the table, a sentence each.
  public var findings: [String]

  /// The table of a disk, nil where there is none: a disk that is empty, or that a file system has for itself.
  ///
  /// Which table counts: with an entry of type EE in the MBR the GPT, its backup where the primary one is damaged; where both
  /// are, the MBR's other entries. Without such an entry the MBR. Without an MBR a sound primary GPT, unless a file system lies
  /// over it.
  ///
  /// - Parameter sectorByteCount: 512, 1024, 2048 or 4096; nil to find out. A GPT tells by its place, an MBR does not: it is
  ///   taken for one of 4096 where only that leads to file systems or logical partitions.
  /// - Throws: `invalidArgument` for another sector size, and what reading the disk's first sector throws. Other sectors that cannot be
  ///   read are findings.
  public static func read(_ disk: DiskWindow, sectorByteCount: UInt64? = nil) throws(EngineError)
    -> PartitionTable?
  {
    let sizes: [UInt64] = sectorByteCount.map { [$0] } ?? [512, 4096]
    guard sizes.allSatisfy({ [512, 1024, 2048, 4096].contains($0) }) else {
      throw .invalid("A sector has 512, 1024, 2048 or 4096 bytes")
    }
    guard disk.byteCount >= UInt64(MBRSector.byteCount) else { return nil }
    let gpt = GPTFinder(disk, sectorByteCounts: sizes)
    guard let mbr = try MBRSector.read(disk) else {
      guard let found = gpt.soundPrimary(), FileSystemIdentity.find(in: disk) == nil else { return nil }
      return found.table(of: disk, findings: ["The disk has a GPT, but no MBR that protects it"])
    }
    guard mbr.isProtective else {
      let ignored = gpt.soundPrimary() != nil
      return MBRReader(disk, mbr, sizes).table(
        findings: ignored ? ["The disk has a GPT, but the MBR does not say so: it is not used"] : [])
    }
    switch gpt.find() {
    case .found(let found, let findings): return found.table(of: disk, findings: findings)
    case .missing(let findings): return MBRReader(disk, mbr, sizes).table(findings: findings)
    }
  }
}
