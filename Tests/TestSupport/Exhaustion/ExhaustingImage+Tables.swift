import FormatEngine
import Foundation

extension ExhaustingImage {
  private static let mebibyte: UInt64 = 1 << 20

  /// Formats with a table or two.
  static let tables: [ExhaustingImage] = [
    // Every entry, a hole, says room 0.
    ExhaustingImage(
      "vdi: as many blocks as there can be, all in one room", endless: ["check", "map", "measure"]
    ) { folder in
      try writeVDI(blockCount: (0x7fff_ffff - 511) / 4, to: folder.file("image"))
    },
    ExhaustingImage("vdi: 8 million blocks, each past the end of the file", endless: ["check", "map"]) {
      folder in
      let file = try writeVDI(blockCount: 1 << 23, to: folder.file("image"))
      try file.write(repeating: [0, 0, 1, 0, 1, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0], count: 1 << 21, at: 512)
    },
    ExhaustingImage("vpc: 2 TiB in blocks of 512 bytes") { folder in
      try writeVPC(entryCount: .max, blockSize: 512, size: 1 << 41, to: folder.file("image"))
    },
    ExhaustingImage(
      "vpc: as many blocks as there can be, all in the header", endless: ["check", "map", "measure"]
    ) { folder in
      try writeVPC(entryCount: 0x1fff_ffff, blockSize: 2048, size: 1 << 40 - 2048, to: folder.file("image"))
    },
    ExhaustingImage("vpc: 8 million blocks in one place", endless: ["check", "map", "measure"]) { folder in
      let file = try writeVPC(entryCount: 1 << 23, blockSize: 4096, size: 1 << 35, to: folder.file("image"))
      try file.write(repeating: [0, 2, 0, 0], count: 1 << 23, at: 1536)
    },
    ExhaustingImage("qed: tables of 1 GiB, 2^63 bytes of disk", endless: ["check", "map"]) { folder in
      let file = try writeQED(
        clusterSize: 64 << 20, tableClusters: 16, size: 1 << 63 - 512, to: folder.file("image"))
      try file.put(littleEndian: UInt64(2 << 30), at: 1 << 30)
    },
    ExhaustingImage("qed: tables of 1 GiB, needs a check", endless: ["check", "map"]) { folder in
      let file = try writeQED(
        clusterSize: 64 << 20, tableClusters: 16, size: 1 << 63 - 512, to: folder.file("image"))
      try file.put(littleEndian: UInt64(2), at: 16)
      try file.write(repeating: [0, 0, 0, 0x80, 0, 0, 0, 0], count: 1 << 20, at: 1 << 30)
    },
    ExhaustingImage("qed: 512 entries for one table of one cluster", endless: ["map"]) { folder in
      let file = try writeQED(clusterSize: 4096, tableClusters: 16, size: 1 << 37, to: folder.file("image"))
      try file.write(repeating: [0, 0, 0x20, 0, 0, 0, 0, 0], count: 8192, at: 1 << 20)
      try file.write(repeating: [0, 0, 0x30, 0, 0, 0, 0, 0], count: 8192, at: 2 << 20)
    },
    ExhaustingImage("qcow: 2 GiB of L1 table, clusters of 512 bytes", endless: ["check", "map", "measure"]) {
      folder in
      _ = try writeQcow(clusterBits: 9, l2Bits: 6, size: ((1 << 28) - 2) << 15, to: folder.file("image"))
    },
    ExhaustingImage("qcow: 2 GiB of L1 table, clusters of 64 KiB", endless: ["check", "map", "measure"]) {
      folder in
      _ = try writeQcow(clusterBits: 16, l2Bits: 13, size: ((1 << 28) - 2) << 29, to: folder.file("image"))
    },
    ExhaustingImage("qcow: L1 table of 32 MiB, all of it one L2 table", endless: ["check", "map", "measure"])
    {
      folder in
      let file = try writeQcow(clusterBits: 9, l2Bits: 6, size: 1 << 37, to: folder.file("image"))
      try file.resize(to: 128 << 20)
      try file.write(repeating: [0, 0, 0, 0, 0x04, 0, 0, 0], count: 1 << 22, at: 512)
      try file.write(repeating: [0, 0, 0, 0, 0x05, 0, 0, 0], count: 64, at: 64 << 20)
    },
    // 8 TiB of disk, with a bitmap of 2 KiB for each 8 MiB.
    ExhaustingImage("bochs: a catalog of 4 MiB, extents of 8 MiB", endless: ["map", "measure"]) { folder in
      try writeBochs(extentSize: 8 << 20, bitmapSize: 1 << 20, to: folder.file("image"))
    },
    ExhaustingImage("bochs: a catalog of 4 MiB, extents of 512 bytes with bitmaps of 1 MiB", endless: ["map"])
    {
      folder in
      try writeBochs(extentSize: 512, bitmapSize: 1 << 20, to: folder.file("image"))
    },
  ]

  @discardableResult
  private static func writeVDI(blockCount: UInt32, to path: String) throws -> SparseFile {
    let data = (512 + UInt64(blockCount) * 4 + mebibyte) / mebibyte * mebibyte
    let file = try SparseFile(path, byteCount: data + 2 * mebibyte)
    try file.write(Array("<<< Oracle VM VirtualBox Disk Image >>>\n".utf8), at: 0)
    let fields: [(UInt64, UInt32)] = [
      (64, 0xbeda_107f), (68, 0x10001), (72, 0x190), (76, 1), (340, 512), (344, UInt32(data)), (360, 512),
      (376, 1 << 20), (384, blockCount), (388, blockCount),
    ]
    for (offset, value) in fields { try file.put(littleEndian: value, at: offset) }
    try file.put(littleEndian: UInt64(blockCount) << 20, at: 368)
    try file.write([UInt8](repeating: 0xa1, count: 16), at: 392)
    return file
  }

  @discardableResult
  private static func writeVPC(entryCount: UInt32, blockSize: UInt32, size: UInt64, to path: String) throws
    -> SparseFile
  {
    func seal(_ bytes: inout [UInt8], _ field: Int) {
      bytes.put(bigEndian: ~bytes.reduce(UInt32(0)) { $0 &+ UInt32($1) }, at: field)
    }
    var footer = Array("conectix".utf8)
    for field in [2, 0x1_0000] { footer.append(bigEndian: UInt32(field)) }
    footer.append(bigEndian: UInt64(512))
    footer += [0, 0, 0, 0] + Array("win ".utf8) + [0, 6, 0, 1] + Array("Wi2k".utf8)
    for _ in 0..<2 { footer.append(bigEndian: size) }
    for field in [0xffff_10ff, 3, 0] { footer.append(bigEndian: UInt32(field)) }
    footer += [UInt8](repeating: 0x55, count: 16)
    footer.pad(toMultipleOf: 512)
    seal(&footer, 64)
    var header = Array("cxsparse".utf8)
    for field in [.max, 1536] as [UInt64] { header.append(bigEndian: field) }
    for field in [0x1_0000, entryCount, blockSize, 0] { header.append(bigEndian: field) }
    header.pad(toMultipleOf: 1024)
    seal(&header, 36)
    let end = (1536 + UInt64(entryCount) * 4 + mebibyte) / mebibyte * mebibyte
    let file = try SparseFile(path, byteCount: end + 4 * mebibyte)
    try file.write(footer + header, at: 0)
    try file.write(footer, at: end + 4 * mebibyte)
    return file
  }

  private static func writeQED(clusterSize: UInt32, tableClusters: UInt32, size: UInt64, to path: String)
    throws
    -> SparseFile
  {
    let table = UInt64(clusterSize) * UInt64(tableClusters)
    let start = max(table, mebibyte)
    let file = try SparseFile(path, byteCount: start * 4)
    var header: [UInt8] = []
    for field in [0x0044_4551, clusterSize, tableClusters, 1] { header.append(littleEndian: field) }
    for field in [0, 0, 0, start, size] { header.append(littleEndian: field) }
    try file.write(header, at: 0)
    return file
  }

  private static func writeQcow(clusterBits: UInt8, l2Bits: UInt8, size: UInt64, to path: String) throws
    -> SparseFile
  {
    let count = size >> UInt64(clusterBits + l2Bits) + 1
    let file = try SparseFile(path, byteCount: 512 + count * 8 + mebibyte)
    var header: [UInt8] = []
    for field in [0x5146_49fb, 1, 0, 0, 0, 0] as [UInt32] { header.append(bigEndian: field) }
    header.append(bigEndian: size)
    header += [clusterBits, l2Bits, 0, 0, 0, 0, 0, 0]
    header.append(bigEndian: UInt64(512))
    try file.write(header, at: 0)
    return file
  }

  private static func writeBochs(extentSize: UInt32, bitmapSize: UInt32, to path: String) throws {
    let file = try SparseFile(path, byteCount: 8 * mebibyte)
    for (text, offset) in [("Bochs Virtual HD Image", 0), ("Redolog", 32), ("Growing", 48)]
      as [(String, UInt64)]
    {
      try file.write(Array(text.utf8), at: offset)
    }
    for (index, field) in [0x20000, 512, 1 << 20, bitmapSize, extentSize].enumerated() {
      try file.put(littleEndian: field, at: 64 + 4 * UInt64(index))
    }
    try file.put(littleEndian: UInt64(extentSize) << 20, at: 88)
  }
}
