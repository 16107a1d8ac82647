import Foundation
import Synchronization
import TestSupport
import Testing

@testable import FormatEngine

/// What blkid finds in what the makers of file systems write.
@Suite struct FileSystemIdentityTests {
  struct Maker: Sendable, CustomTestStringConvertible {
    var type: String
    /// In MiB; 0: the program makes the file.
    var size: UInt64
    /// A program and its words; `DISK` is the file.
    var command: [String]
    /// With spaces and letters beyond ASCII where it may have these, as long as it may be.
    var label: String?

    init(_ type: String, _ size: UInt64, _ command: String, label: String? = nil, option: String = "-L") {
      self.type = type
      self.size = size
      self.label = label
      var words = command.split(separator: " ").map(String.init)
      if let label { words.insert(contentsOf: [option, label], at: command.hasPrefix("xorriso") ? 3 : 1) }
      self.command = words
    }

    var testDescription: String { (command + [label ?? ""]).joined(separator: " ") }
  }

  static let ext: [Maker] = [
    Maker("ext2", 4, "mkfs.ext2 -q DISK", label: "two words"),
    Maker("ext3", 4, "mkfs.ext3 -q DISK", label: "größe"),
    Maker("ext3", 4, "mkfs.ext3 -q DISK"),
    Maker("ext4", 4, "mkfs.ext4 -q DISK", label: "sixteen letters!"),
    Maker("ext4", 4, "mkfs.ext4 -q -O ^has_journal DISK"),
    Maker("ext4", 4, "mkfs.ext4 -q -O ^metadata_csum,^64bit -b 4096 DISK"),
  ]
  static let fat: [Maker] = [
    Maker("vfat", 2, "mkfs.vfat -F 12 DISK", label: "A B", option: "-n"),
    Maker("vfat", 20, "mkfs.vfat -F 16 DISK", label: "ELEVEN BYTE", option: "-n"),
    Maker("vfat", 40, "mkfs.vfat -F 32 DISK", label: "THIRTYTWO", option: "-n"),
    Maker("vfat", 20, "mkfs.vfat -S 4096 DISK", label: "LARGE", option: "-n"),
    Maker("vfat", 40, "mkfs.vfat -F 32 DISK"),
    Maker("vfat", 2, "mkfs.vfat DISK"),
    Maker("vfat", 40, "mkfs.vfat --mbr=y DISK", label: "ITS OWN MBR", option: "-n"),
    Maker("exfat", 8, "mkfs.exfat DISK", label: "ex fät"),
    Maker("exfat", 8, "mkfs.exfat DISK"),
    Maker("exfat", 8, "mkfs.exfat -c 4096 DISK", label: "eleven byte"),
    Maker("ntfs", 4, "mkfs.ntfs -q -F DISK", label: "an NTFS größe"),
    Maker("ntfs", 4, "mkfs.ntfs -q -F DISK"),
    Maker("ntfs", 4, "mkfs.ntfs -q -F -c 65536 -s 4096 DISK", label: "large clusters"),
  ]
  static let others: [Maker] = [
    Maker("xfs", 300, "mkfs.xfs -q DISK", label: "twelve bytes"),
    Maker("xfs", 300, "mkfs.xfs -q -m crc=0 -b size=1024 DISK"),
    Maker("btrfs", 128, "mkfs.btrfs -q DISK", label: "b größe"),
    Maker("btrfs", 128, "mkfs.btrfs -q --csum xxhash DISK"),
    Maker("f2fs", 64, "mkfs.f2fs -q DISK", label: "f2 größe €", option: "-l"),
    Maker("f2fs", 64, "mkfs.f2fs -q DISK"),
    Maker("swap", 1, "mkswap DISK", label: "swap space"),
    Maker("swap", 1, "mkswap -p 65536 DISK"),
    Maker("squashfs", 0, "mksquashfs folder DISK -quiet -no-progress"),
    Maker("erofs", 0, "mkfs.erofs -U 11111111-2222-3333-4444-555555555555 DISK folder"),
    Maker("iso9660", 0, "genisoimage -quiet -o DISK folder", label: "PLAIN LABEL", option: "-V"),
    Maker(
      "iso9660", 0, "genisoimage -quiet -J -o DISK folder", label: "longer than sixteen units", option: "-V"),
    Maker("iso9660", 0, "genisoimage -quiet -J -o DISK folder", label: "short", option: "-V"),
    Maker("iso9660", 0, "xorriso -as mkisofs -quiet -J -o DISK folder", label: "XORRISO", option: "-V"),
    Maker("crypto_LUKS", 4, "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 DISK key"),
    Maker(
      "crypto_LUKS", 20,
      "cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 DISK key"),
  ]

  @Test(arguments: ext + fat + others) func identityIsThatOfBlkid(_ maker: Maker) throws {
    try TemporaryFolder.with { folder in
      let path = try make(maker, in: folder)
      let found = FileSystemIdentity.find(in: try DiskWindow(FileStore.open(path, access: .readOnly)))
      #expect(try found == DiskTool.blkidIdentity(path, in: folder))
      #expect(found?.type == maker.type)
      if let label = maker.label { #expect(found?.label == label) }
    }
  }

  private func make(_ maker: Maker, in folder: TemporaryFolder) throws -> String {
    let path = folder.file("disk")
    if maker.size > 0 { _ = try DiskTool.makeDisk("disk", byteCount: maker.size << 20, in: folder) }
    _ = try folder.makeFolder("folder")
    try folder.write(Array("content".utf8), to: "folder/a long name of a file.txt")
    try folder.write(Array("key".utf8), to: "key")
    let words = maker.command.map { $0 == "DISK" ? path : $0 }
    try DiskTool.run(words[0], Array(words[1...]), in: folder)
    return path
  }

  @Test func labelOfLUKS2IsThatOfBlkid() throws {
    let words = "luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 DISK key"
    try identityIsThatOfBlkid(
      Maker("crypto_LUKS", 20, "cryptsetup --batch-mode " + words, label: "a label", option: "--label"))
  }

  /// The label of the root folder counts, not the one of the boot sector, and not a deleted one.
  @Test(arguments: [fat[0], fat[1], fat[2]]) func labelIsThatOfTheRootFolder(_ maker: Maker) throws {
    try TemporaryFolder.with { folder in
      let path = try make(maker, in: folder)
      var bytes = try Files.read(path)
      let place = try #require(Self.rootFolder(of: bytes))
      for (value, offset) in [(UInt8(0xe5), 0), (UInt8(0x0f), 11), (UInt8(0x05), 0), (UInt8(ascii: " "), 0)] {
        var changed = bytes
        changed[place + offset] = value
        try Files.write(changed, to: path)
        let found = FileSystemIdentity.find(in: try DiskWindow(MemoryStore(changed)))
        #expect(found?.uuid != nil && found?.type == "vfat")
        // Where the name begins with E5, blkid writes that byte out as it is.
        if value != 0x05 { #expect(try found == DiskTool.blkidIdentity(path, in: folder)) }
      }
      bytes.replaceSubrange(place..<place + 11, with: Array("ANOTHER ONE".utf8))
      #expect(FileSystemIdentity.find(in: try DiskWindow(MemoryStore(bytes)))?.label == "ANOTHER ONE")
    }
  }

  private static func rootFolder(of bytes: [UInt8]) -> Int? {
    func short(_ offset: Int) -> Int { Int(bytes[offset]) | Int(bytes[offset + 1]) << 8 }
    let tables = Int(bytes[16]) * (short(22) == 0 ? short(36) : short(22))
    return (short(14) + tables) * short(11)
  }

  /// A FAT32 with its root folder in clusters 2 and 3, with clusters of any size and any entry for cluster 3 in the FAT.
  private static func fat32(
    sectorByteCount: UInt16, clusterSectorCount: UInt8, next: UInt32, label: String
  ) -> PiecedDisk {
    let sector = Int(sectorByteCount)
    let cluster = sector * Int(clusterSectorCount)
    var boot: [UInt8] = [0xeb, 0x58, 0x90] + Array("mkfs.fat".utf8)
    boot.append(littleEndian: sectorByteCount)
    boot += [clusterSectorCount, 8, 0, 1]
    boot += [0, 0, 0, 0, 0xf8] + [UInt8](repeating: 0, count: 10)
    boot.append(littleEndian: UInt32(1 << 18))
    boot.append(littleEndian: UInt32(8))
    boot += [0, 0, 0, 0, 2] + [UInt8](repeating: 0, count: 21)
    boot += [0x29, 1, 2, 3, 4] + Array("NO NAME    FAT32   ".utf8)
    var table = [UInt8](repeating: 0, count: 8)
    table.append(littleEndian: UInt32(3))
    table.append(littleEndian: next)
    // Files without a name's worth, then the label at the end of the second cluster.
    let file = Array("A FILE  TXT ".utf8) + [UInt8](repeating: 0, count: 20)
    var folder = Array([[UInt8]](repeating: file, count: 2 * cluster / 32).joined())
    if !label.isEmpty {
      folder.replaceSubrange(folder.count - 32..<folder.count - 20, with: Array(label.utf8) + [0x08])
    }
    return PiecedDisk(
      byteCount: UInt64(sector) << 18,
      [(0, boot), (8 * UInt64(sector), table), (16 * UInt64(sector), folder)])
  }

  @Test func labelIsFoundInALaterClusterOfTheRootFolder() throws {
    let disk = Self.fat32(
      sectorByteCount: 512, clusterSectorCount: 8, next: 0x0fff_ffff, label: "THE LABEL  ")
    #expect(FileSystemIdentity.find(in: try DiskWindow(disk))?.label == "THE LABEL")
  }

  /// Neither a root folder that is a loop nor large clusters make it read on.
  @Test(arguments: [(512, 1), (512, 8), (4096, 128)])
  func littleIsReadOfARootFolderWithoutEnd(_ sectorByteCount: UInt16, _ clusterSectorCount: UInt8) throws {
    let disk = Self.fat32(
      sectorByteCount: sectorByteCount, clusterSectorCount: clusterSectorCount, next: 2, label: "")
    let found = try FATVolume.identify(DiskWindow(disk))
    #expect(found == FileSystemIdentity(type: "vfat", uuid: "0403-0201"))
    #expect((64 << 10..<66 << 10).contains(disk.readByteCount.load(ordering: .relaxed)))
  }

  /// lvm2 needs a block device, and more than a test wants of the machine; blkid judges what is made by hand. (It looks for
  /// none on a disk that is as small as a floppy disk.)
  @Test(arguments: [0, 1, 3]) func physicalVolumeIsThatOfBlkid(_ sector: UInt64) throws {
    try TemporaryFolder.with { folder in
      var label = Array("LABELONE".utf8)
      label.append(littleEndian: sector)
      var rest: [UInt8] = []
      rest.append(littleEndian: UInt32(32))
      rest += Array("LVM2 001AbCdEfGhIjKlMnOpQrStUvWxYz012345".utf8)
      rest += [UInt8](repeating: 0, count: 512 - 20 - rest.count)
      label.append(littleEndian: ~CRC32.checksum(of: rest, from: 0xf597_a6cf))
      var bytes = [UInt8](repeating: 0, count: 2 << 20)
      let start = Int(sector) * 512
      bytes.replaceSubrange(start..<start + 512, with: label + rest)
      let path = try folder.write(bytes, to: "disk")
      let found = FileSystemIdentity.find(in: try DiskWindow(MemoryStore(bytes)))
      #expect(
        found == FileSystemIdentity(type: "LVM2_member", uuid: "AbCdEf-GhIj-KlMn-OpQr-StUv-WxYz-012345"))
      #expect(try found == DiskTool.blkidIdentity(path, in: folder))
      bytes[start + 100] ^= 1
      #expect(FileSystemIdentity.find(in: try DiskWindow(MemoryStore(bytes))) == nil)
    }
  }

  /// Where nothing is, and where a partition table is, also one with a boot loader's code, no file system is found.
  @Test func tablesAreNoFileSystems() throws {
    var random = SeededRandom(seed: 6602)
    for round in 0..<500 {
      var sector = HandMadeMBREntry.sector([.init(type: 0x83, first: 2048, count: 4096), .protective])
      if round > 0 { sector.replaceSubrange(0..<440, with: random.bytes(440)) }
      sector[0] = [0xeb, 0xe9, 0xfa, 0x33][round % 4]
      let gpt = HandMadeGPT(sectorCount: 10000, entries: [.init(first: 40, last: 50)])
      let disk = PiecedDisk(byteCount: 10000 * 512, [(0, sector)] + gpt.pieces)
      #expect(FileSystemIdentity.find(in: try DiskWindow(disk)) == nil, "round \(round)")
    }
  }

  /// Partitions are looked at with nothing around them.
  @Test func whatLiesInAPartitionIsFoundThere() throws {
    try TemporaryFolder.with { folder in
      let content = try Files.read(make(Self.ext[3], in: folder))
      let mbr = HandMadeMBREntry.sector([.init(type: 0x83, first: 2048, count: UInt32(content.count / 512))])
      let disk = try DiskWindow(PiecedDisk(byteCount: 16 << 20, [(0, mbr), (2048 * 512, content)]))
      let partition = try #require(try PartitionTable.read(disk)?.partitions.first)
      #expect(FileSystemIdentity.find(in: partition.window(on: disk))?.label == Self.ext[3].label)
      #expect(FileSystemIdentity.find(in: disk) == nil)
      // Cut off behind the superblock's first half.
      #expect(FileSystemIdentity.find(in: disk.part(at: partition.start, byteCount: 1500)) == nil)
    }
  }
}
