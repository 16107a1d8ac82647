import FormatEngine
import Foundation

extension ExhaustingImage {
  static let others: [ExhaustingImage] = [
    ExhaustingImage("raw: 15 TiB in a hole", format: "raw") { folder in
      _ = try SparseFile(folder.file("image"), byteCount: 15 << 40)
    },
    ExhaustingImage(
      "raw: 8 EiB of nothing",
      name: "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"null-co\",\"size\":9223372036854775296}}",
      isMountable: false
    ) { _ in },
    ExhaustingImage(
      "a JSON name of 100 KiB", name: "json:" + String(repeating: "{\"file\":", count: 12_000),
      isMountable: false
    ) { _ in },
    ExhaustingImage(
      "a JSON name with 12,000 keys",
      name: "json:{" + (0..<12_000).map { "\"k\($0)\":1" }.joined(separator: ",") + "}", isMountable: false
    ) { _ in },
    ExhaustingImage("luks: eight slots with as many iterations as may be") { folder in
      try BuiltProduct.qemuImg.run(
        [
          "create", "-q", "-f", "luks", "--object", "secret,id=key,data=secret", "-o",
          "key-secret=key,iter-time=1", "image", "1M",
        ], folder: folder.path
      ).expecting()
      let file = try SparseFile(updating: folder.file("image"))
      for slot in 0..<8 as Range<UInt64> {
        try file.put(bigEndian: UInt32(0x00ac_71f3), at: 208 + 48 * slot)
        try file.put(bigEndian: UInt32(1 << 27), at: 212 + 48 * slot)
      }
    },
    ExhaustingImage("raw: a GPT of 2^32 - 1 entries", format: "raw") { folder in
      try writeGPT(entryCount: .max, entrySize: 128, to: folder.file("image"))
    },
    ExhaustingImage("raw: a GPT with entries of 2 GiB", format: "raw") { folder in
      try writeGPT(entryCount: 128, entrySize: 1 << 31, to: folder.file("image"))
    },
    ExhaustingImage("raw: a GPT of 8192 entries", format: "raw") { folder in
      try writeGPT(entryCount: 8192, entrySize: 128, to: folder.file("image"))
    },
    ExhaustingImage("raw: 20,000 logical partitions in a circle", format: "raw") { folder in
      let file = try writeMBR(to: folder.file("image"))
      for index in 0..<20_000 as Range<UInt64> {
        try writeLink(index, next: (index + 1) % 20_000, to: file)
      }
    },
    ExhaustingImage("raw: 20,000 empty logical partitions", format: "raw") { folder in
      let file = try writeMBR(to: folder.file("image"))
      for index in 0..<20_000 as Range<UInt64> {
        try writeLink(index, next: index + 1, sectors: 0, to: file)
      }
    },
  ]

  // MARK: Partition tables

  private static func entry(_ type: UInt8, _ start: UInt64, _ sectors: UInt64) -> [UInt8] {
    var bytes: [UInt8] = [0, 0, 2, 0, type, 0xff, 0xff, 0xff]
    bytes.append(littleEndian: UInt32(truncatingIfNeeded: start))
    bytes.append(littleEndian: UInt32(truncatingIfNeeded: sectors))
    return bytes
  }

  /// With an extended partition from sector 2048 on.
  private static func writeMBR(to path: String) throws -> SparseFile {
    let file = try SparseFile(path, byteCount: 64 << 20)
    try file.write(entry(5, 2048, 120_000), at: 446)
    try file.write([0x55, 0xaa], at: 510)
    return file
  }

  /// A logical partition, and where the next one is.
  private static func writeLink(_ index: UInt64, next: UInt64, sectors: UInt64 = 1, to file: SparseFile)
    throws
  {
    let place = (2048 + index * 2) * 512
    try file.write(entry(sectors == 0 ? 0 : 0x83, 1, sectors) + entry(5, next * 2, 2), at: place + 446)
    try file.write([0x55, 0xaa], at: place + 510)
  }

  /// Primary and backup header are alike; the entries are partitions of a sector.
  private static func writeGPT(entryCount: UInt32, entrySize: UInt32, to path: String) throws {
    let file = try SparseFile(path, byteCount: 64 << 20)
    let sectors: UInt64 = 64 << 11
    try file.write(entry(0xee, 1, sectors - 1), at: 446)
    try file.write([0x55, 0xaa], at: 510)
    let listed = min(Int(entryCount), 8192)
    var list: [UInt8] = []
    for index in 0..<listed {
      list += [UInt8](repeating: 0xaf, count: 16) + [UInt8](repeating: UInt8(index & 0xff), count: 14)
      list.append(bigEndian: UInt16(index))
      for _ in 0..<2 { list.append(littleEndian: UInt64(4096 + index)) }
      list.pad(toMultipleOf: 128)
    }
    for (here, other, entries) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 2050)]
      as [(UInt64, UInt64, UInt64)]
    {
      var header = Array("EFI PART".utf8)
      for field in [0x1_0000, 92, 0, 0] as [UInt32] { header.append(littleEndian: field) }
      for field in [here, other, 2100, sectors - 2100] { header.append(littleEndian: field) }
      header += [UInt8](repeating: 0x1d, count: 16)
      header.append(littleEndian: entries)
      for field in [entryCount, entrySize, crc32(list)] { header.append(littleEndian: field) }
      header.put(bigEndian: crc32(header).byteSwapped, at: 16)
      try file.write(header, at: here * 512)
      try file.write(list, at: entries * 512)
    }
  }

  private static func crc32(_ bytes: [UInt8]) -> UInt32 {
    let table: [UInt32] = (0..<256).map { index in
      (0..<8).reduce(UInt32(index)) { sum, _ in sum >> 1 ^ (sum & 1 != 0 ? 0xedb8_8320 : 0) }
    }
    var sum = UInt32.max
    for byte in bytes { sum = table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)] ^ sum >> 8 }
    return ~sum
  }
}
