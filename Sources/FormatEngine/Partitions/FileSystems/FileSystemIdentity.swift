/// What lies in a partition or on a disk, in the words of `blkid`: a file system, swap space, an encrypted or a pooled
/// volume.
public struct FileSystemIdentity: Equatable, Sendable {
  /// As blkid's TYPE: `ext4`, `vfat`, `crypto_LUKS`.
  public var type: String
  /// Any text without NUL, nil where it is empty.
  public var label: String?
  /// As blkid writes it, which differs from file system to file system.
  public var uuid: String?

  public init(type: String, label: String? = nil, uuid: String? = nil) {
    self.type = type
    self.label = label
    self.uuid = uuid
  }

  /// The first that is there, nil where there is none that is known. What cannot be read is not known.
  ///
  /// A name is given only where the structure around the signature holds together, too: the bytes of a partition table are no
  /// file system. The order is that of blkid: what holds other volumes first.
  public static func find(in window: DiskWindow) -> FileSystemIdentity? {
    for signature in all {
      if let found = (try? signature.identify(window)) ?? nil { return found }
    }
    return nil
  }

  private static let all: [any FileSystemSignature.Type] =
    [LVMLabel.self, LUKSVolume.self, FATVolume.self, SwapSpace.self, XFSSuperblock.self, ExtSuperblock.self]
    + [NTFSVolume.self, ISO9660Volume.self, SquashFSSuperblock.self, BtrfsSuperblock.self]
    + [F2FSSuperblock.self, ExFATVolume.self, EROFSSuperblock.self]

  /// Those whose first sector ends as an MBR does.
  static let withBootSectors: [any FileSystemSignature.Type] = [
    FATVolume.self, NTFSVolume.self, ExFATVolume.self,
  ]
}

/// Knows one kind of file system by its signature.
protocol FileSystemSignature: SendableMetatype {
  /// Nil, or any error, where it is not there.
  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity?
}

extension FixedWidthInteger {
  /// Whether it is a power of two.
  var isPowerOfTwo: Bool { self > 0 && nonzeroBitCount == 1 }
}
