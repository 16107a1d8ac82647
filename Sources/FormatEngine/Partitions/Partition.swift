/// A partition as its table describes it, as far as it lies on the disk.
public struct Partition: Equatable, Sendable {
  /// As Linux counts: the place in a GPT, 1 - 4 in an MBR, from 5 on in the chain of an extended partition.
  public var number: Int
  /// On the disk, in bytes.
  public var start: UInt64
  /// In bytes, more than 0. An extended partition has the size that its entry says, although Linux shows 1 KiB of it
  /// only: it is there to be looked at, and what is in it has names of its own.
  public var byteCount: UInt64
  /// The GUID of a GPT entry's type in lower case, or the type byte of an MBR entry as blkid has it: `0x83`, `0xc`.
  public var type: String
  /// What Linux calls PARTUUID, in lower case: that of a GPT entry, or the MBR's signature with the number. Nil where
  /// the table has none.
  public var uuid: String?
  /// A GPT entry's name, which may be any text without NUL. Nil where it is empty.
  public var name: String?
  /// The attribute bits of a GPT entry.
  public var attributes: UInt64 = 0
  /// Whether an MBR calls it active, or a GPT bootable for a BIOS.
  public var isBootable = false
  /// Whether it is the one that holds the logical partitions of an MBR.
  public var isExtended = false

  /// Its bytes on `disk`.
  public func window(on disk: DiskWindow) -> DiskWindow { disk.part(at: start, byteCount: byteCount) }

  var end: UInt64 { start + byteCount }
}
