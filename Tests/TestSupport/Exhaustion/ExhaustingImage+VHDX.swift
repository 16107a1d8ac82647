import FormatEngine
import Foundation

extension ExhaustingImage {
  private static let mebibyte: UInt64 = 1 << 20

  static let vhdx: [ExhaustingImage] = [
    ExhaustingImage("vhdx: 64 TiB in blocks of 1 MiB") { folder in
      try create("vhdx", "64T", ["block_size=1M"], in: folder)
    },
    ExhaustingImage(
      "vhdx: 64 TiB in blocks of 1 MiB, a million of them in one place", endless: ["map", "measure"]
    ) {
      folder in
      try create("vhdx", "64T", ["block_size=1M"], in: folder)
      let file = try SparseFile(updating: folder.file("image"))
      let bat = try VHDXSketch.region(0, of: file)
      try file.write(repeating: [6, 0, 0x40, 0, 0, 0, 0, 0], count: 1 << 20, at: bat)
    },
    logOf(changes: 1 << 18, isHeavy: false), logOf(changes: 1 << 19 - 130, isHeavy: true),
    ExhaustingImage("vhdx: 2047 items of metadata") { folder in
      try create("vhdx", "3M", ["block_size=1M"], in: folder)
      let file = try SparseFile(updating: folder.file("image"))
      let metadata = try VHDXSketch.region(1, of: file)
      try file.put(littleEndian: UInt16(2047), at: metadata + 10)
      for index in 0..<2047 as Range<UInt64> {
        let place = metadata + 32 + 32 * index
        guard try file.bytes(at: place, count: 16) == [UInt8](repeating: 0, count: 16) else { continue }
        try file.put(bigEndian: 0xeeee_0000_0000_0000 + index, at: place)
        try file.put(littleEndian: UInt32(256 << 10), at: place + 16)
        try file.put(littleEndian: UInt32(512 << 10), at: place + 20)
      }
    },
    ExhaustingImage("vhdx: parent locator of 1 MiB") { folder in
      try create("vhdx", "4M", ["block_size=1M"], in: folder)
      let file = try SparseFile(updating: folder.file("image"))
      let metadata = try VHDXSketch.region(1, of: file)
      // The file's parameters say that there is a parent; the last item becomes its locator.
      let count = UInt64(try file.bytes(at: metadata + 10, count: 1)[0])
      for index in 0..<count {
        let place = metadata + 32 + 32 * index
        if try file.bytes(at: place, count: 4) == [0x37, 0x67, 0xa1, 0xca] {
          let offset = try VHDXSketch.number(at: place + 16, of: file) & 0xffff_ffff
          try file.put(littleEndian: UInt32(2), at: metadata + offset + 4)
        }
      }
      let place = metadata + 32 + 32 * count
      try file.put(littleEndian: UInt16(count + 1), at: metadata + 10)
      try file.write(
        [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c],
        at: place)
      try file.put(littleEndian: UInt32(128 << 10), at: place + 16)
      try file.put(littleEndian: UInt32(800 << 10), at: place + 20)
      try file.put(littleEndian: UInt32(4), at: place + 24)
      let locator = metadata + 128 << 10
      try file.write(
        [0xef, 0xe8, 0xac, 0xb0, 0x9c, 0x1b, 0x43, 0x48, 0x87, 0x5e, 0x26, 0x2f, 0x7a, 0xa9, 0xd6, 0x0e],
        at: locator)
      try file.put(littleEndian: UInt16(60_000), at: locator + 18)
      // Keys and values of 65534 bytes, all the same ones.
      var entry: [UInt8] = []
      for field in [720_000, 730_000] as [UInt32] { entry.append(littleEndian: field) }
      for field in [65_534, 65_534] as [UInt16] { entry.append(littleEndian: field) }
      try file.write(repeating: entry, count: 60_000, at: locator + 20)
    },
    ExhaustingImage("vhdx: 2047 regions") { folder in
      try create("vhdx", "3M", ["block_size=1M"], in: folder)
      let file = try SparseFile(updating: folder.file("image"))
      for start in [192 << 10, 256 << 10] as [UInt64] {
        var table = try file.bytes(at: start, count: 64 << 10)
        for index in 2..<2047 {
          let entry = 16 + 32 * index
          table.put(bigEndian: UInt64(index), at: entry)
          table.put(bigEndian: (UInt64(100 + index) << 20).byteSwapped, at: entry + 16)
          table.put(bigEndian: UInt32(1 << 20).byteSwapped, at: entry + 24)
        }
        table.put(bigEndian: UInt32(2047).byteSwapped, at: 8)
        VHDXSketch.seal(&table)
        try file.write(table, at: start)
      }
      try file.resize(to: 3 << 30)
    },
  ]

  /// A log with so many changes, which overlap: in entries of a sector, with 126 of them each.
  private static func logOf(changes: Int, isHeavy: Bool) -> ExhaustingImage {
    ExhaustingImage("vhdx: a log of \(changes) changes", isHeavy: isHeavy) { folder in
      try create("vhdx", "1G", ["block_size=1M"], in: folder)
      let file = try SparseFile(updating: folder.file("image"))
      let (logOffset, end) = (64 * mebibyte, 256 * mebibyte)
      try file.resize(to: end)
      let entries = (changes + 125) / 126
      let logLength = (UInt64(entries) * 4096 + mebibyte - 1) / mebibyte * mebibyte
      let guid = [UInt8](repeating: 0x77, count: 16)
      for start in [64 << 10, 128 << 10] as [UInt64] {
        var header = try file.bytes(at: start, count: 4096)
        header.replaceSubrange(48..<64, with: guid)
        header.put(bigEndian: UInt32(logLength).byteSwapped, at: 68)
        header.put(bigEndian: logOffset.byteSwapped, at: 72)
        VHDXSketch.seal(&header)
        try file.write(header, at: start)
      }
      for number in 0..<entries {
        var entry: [UInt8] = []
        for field in [0x6567_6f6c, 0, 4096, 0] as [UInt32] { entry.append(littleEndian: field) }
        entry.append(littleEndian: UInt64(number + 1))
        for field in [126, 0] as [UInt32] { entry.append(littleEndian: field) }
        entry += guid
        for field in [end, end] { entry.append(littleEndian: field) }
        var zeros: [UInt8] = []
        for field in [0x6f72_657a, 0] as [UInt32] { zeros.append(littleEndian: field) }
        for field in [3 << 12, 160 * mebibyte, UInt64(number + 1)] { zeros.append(littleEndian: field) }
        for index in 0..<126 {
          let place = 160 * mebibyte + UInt64((number * 7919 + index * 104_729) % 20_000) << 12
          zeros.put(bigEndian: place.byteSwapped, at: 16)
          entry += zeros
        }
        VHDXSketch.seal(&entry)
        try file.write(entry, at: logOffset + UInt64(number) << 12)
      }
    }
  }
}

/// What of a VHDX file has to be known to change it.
enum VHDXSketch {
  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { sum, _ in sum >> 1 ^ (sum & 1 != 0 ? 0x82f6_3b78 : 0) }
  }

  /// Sets the CRC-32C of a structure, at its fifth byte, right.
  static func seal(_ bytes: inout [UInt8]) {
    bytes.put(bigEndian: UInt32(0), at: 4)
    let table = table
    var sum = UInt32.max
    for byte in bytes { sum = table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)] ^ sum >> 8 }
    bytes.put(bigEndian: (~sum).byteSwapped, at: 4)
  }

  static func number(at offset: UInt64, of file: SparseFile) throws -> UInt64 {
    try file.bytes(at: offset, count: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// Where the BAT (0) or the metadata (1) are.
  static func region(_ index: UInt64, of file: SparseFile) throws -> UInt64 {
    try number(at: 192 << 10 + 16 + 32 * index + 16, of: file)
  }
}
