import FormatEngine
import TestSupport

/// Puts a UDIF image together.
struct DMGImage {
  /// How the map is stored.
  enum MapPlace: Sendable { case propertyList, resourceFork }
  /// Where the trailer is.
  enum TrailerPlace: Sendable { case end, beforeRest(Int), start }

  /// One row of a block table.
  struct Chunk {
    var kind: UInt32
    /// Counted from the table's first sector.
    var sector: UInt64
    var sectorCount: UInt64
    /// In the data fork.
    var offset: UInt64
    var byteCount: UInt64
  }

  struct Table {
    var firstSector: UInt64
    var chunks: [Chunk] = []
    var checksum: UInt32 = 0
    /// What its header says; nil: as many as there are.
    var claimedCount: UInt32?
  }

  enum Kind {
    static let (zeros, raw, ignored): (UInt32, UInt32, UInt32) = (0, 1, 2)
    static let (adc, zlib, bzip2): (UInt32, UInt32, UInt32) = (0x8000_0004, 0x8000_0005, 0x8000_0006)
    static let (lzfse, lzma): (UInt32, UInt32) = (0x8000_0007, 0x8000_0008)
    static let (comment, terminator): (UInt32, UInt32) = (0x7fff_fffe, .max)
  }

  var mapPlace = MapPlace.propertyList
  var trailerPlace = TrailerPlace.end
  var dataFork: [UInt8] = []
  var tables: [Table] = []
  var sectorCount: UInt64 = 0
  /// In place of the property list that belongs to the tables.
  var propertyList: [UInt8]?

  /// Adds a chunk to the last table: `bytes` in the data fork for so many sectors, the next ones of the table.
  mutating func add(_ kind: UInt32, _ bytes: [UInt8] = [], sectors: Int, unpacked: [UInt8] = []) {
    let last = tables[tables.count - 1].chunks.last { $0.kind != Kind.comment }
    let sector = last.map { $0.sector + $0.sectorCount } ?? 0
    tables[tables.count - 1].chunks.append(
      Chunk(
        kind: kind, sector: sector, sectorCount: UInt64(sectors), offset: UInt64(dataFork.count),
        byteCount: UInt64(bytes.count)))
    dataFork += bytes
    if kind != Kind.ignored {
      tables[tables.count - 1].checksum = PlainSums.crc32(
        unpacked, from: tables[tables.count - 1].checksum)
    }
    sectorCount = max(sectorCount, tables[tables.count - 1].firstSector + sector + UInt64(sectors))
  }

  var file: [UInt8] {
    var (list, fork): ([UInt8], [UInt8]) = ([], [])
    if let propertyList {
      list = propertyList
    } else {
      switch mapPlace {
      case .propertyList: list = Self.propertyList(tables.map(Self.bytes))
      case .resourceFork: fork = Self.resourceFork(tables.map(Self.bytes))
      }
    }
    let body = dataFork + list + fork
    switch trailerPlace {
    case .end: return body + trailer(base: 0, list.count, fork.count)
    case .beforeRest(let count):
      return body + trailer(base: 0, list.count, fork.count) + [UInt8](repeating: 0, count: count)
    case .start: return trailer(base: 512, list.count, fork.count) + body
    }
  }

  private func trailer(base: Int, _ listCount: Int, _ forkCount: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 512)
    bytes.put(bigEndian: UInt32(0x6b6f_6c79), at: 0)
    bytes.put(bigEndian: UInt32(4), at: 4)
    bytes.put(bigEndian: UInt32(512), at: 8)
    let parts = [
      (24, 0, dataFork.count), (216, dataFork.count, listCount), (40, dataFork.count + listCount, forkCount),
    ]
    for (field, offset, count) in parts where count > 0 || field == 24 {
      bytes.put(bigEndian: UInt64(base + offset), at: field)
      bytes.put(bigEndian: UInt64(count), at: field + 8)
    }
    bytes.put(bigEndian: UInt64(0x1_0000_0001), at: 56)
    var sums: [UInt8] = []
    for table in tables { sums.append(bigEndian: table.checksum) }
    for (field, sum) in [(80, PlainSums.crc32(dataFork)), (352, PlainSums.crc32(sums))] {
      bytes.put(bigEndian: UInt64(0x2_0000_0020), at: field)
      bytes.put(bigEndian: sum, at: field + 8)
    }
    bytes.put(bigEndian: sectorCount, at: 492)
    return bytes
  }

  static func bytes(_ table: Table) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 204)
    bytes.put(bigEndian: UInt32(0x6d69_7368), at: 0)
    bytes.put(bigEndian: UInt32(1), at: 4)
    bytes.put(bigEndian: table.firstSector, at: 8)
    bytes.put(bigEndian: table.chunks.reduce(0) { $0 &+ $1.sectorCount }, at: 16)
    bytes.put(bigEndian: UInt64(0x2_0000_0020), at: 64)
    bytes.put(bigEndian: table.checksum, at: 72)
    bytes.put(bigEndian: table.claimedCount ?? UInt32(table.chunks.count), at: 200)
    for chunk in table.chunks {
      bytes.append(bigEndian: chunk.kind)
      bytes.append(bigEndian: UInt32(0))
      for number in [chunk.sector, chunk.sectorCount, chunk.offset, chunk.byteCount] {
        bytes.append(bigEndian: number)
      }
    }
    return bytes
  }

  static func propertyList(_ tables: [[UInt8]]) -> [UInt8] {
    var text = """
      <?xml version="1.0" encoding="UTF-8"?>
      <!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
      <plist version="1.0"><dict><key>resource-fork</key><dict><key>blkx</key><array>

      """
    for (index, table) in tables.enumerated() {
      text +=
        "<dict><key>ID</key><string>\(index)</string><key>Data</key><data>\n\(PlainSums.base64(table))\n</data></dict>\n"
    }
    return Array((text + "</array></dict></dict></plist>\n").utf8)
  }

  /// With one type and one entry for each table.
  static func resourceFork(_ tables: [[UInt8]]) -> [UInt8] {
    var (data, entries): ([UInt8], [UInt8]) = ([], [])
    for (index, table) in tables.enumerated() {
      entries.append(bigEndian: UInt16(index))
      entries.append(bigEndian: UInt16.max)
      entries.append(bigEndian: UInt32(data.count))
      entries.append(bigEndian: UInt32(0))
      data.append(bigEndian: UInt32(table.count))
      data += table
    }
    var map = [UInt8](repeating: 0, count: 24)
    map.append(bigEndian: UInt16(28))
    map.append(bigEndian: UInt16(28 + 10 + entries.count))
    map.append(bigEndian: UInt16(0))
    map += Array("blkx".utf8)
    map.append(bigEndian: UInt16(tables.count - 1))
    map.append(bigEndian: UInt16(10))
    map += entries
    var fork: [UInt8] = []
    for number in [256, 256 + data.count, data.count, map.count] { fork.append(bigEndian: UInt32(number)) }
    fork += [UInt8](repeating: 0, count: 240)
    return fork + data + map
  }
}

extension DMGImage {
  /// A random disk in several tables, whose packed chunks are made by `pack`.
  static func random(
    packed kind: UInt32, mapPlace: MapPlace = .propertyList, isJudged: Bool, _ random: inout SeededRandom,
    content: (Int, inout SeededRandom) -> [UInt8] = DMGImage.content, pack: ([UInt8]) throws -> [UInt8]
  ) throws -> BuiltImage {
    var image = DMGImage(mapPlace: mapPlace)
    var disk: [UInt8] = []
    for _ in 0..<4 {
      image.tables.append(Table(firstSector: UInt64(disk.count / 512)))
      if random.oneIn(2) { image.add(Kind.comment, sectors: 0) }
      for _ in 0...random.below(8) {
        let count = 1 + random.below(random.oneIn(3) ? 8 : 400)
        var bytes = [UInt8](repeating: 0, count: count * 512)
        switch random.below(8) {
        case 0: image.add(Kind.zeros, sectors: count, unpacked: bytes)
        case 1: image.add(Kind.ignored, sectors: count)
        case 2:
          bytes = random.bytes(count * 512)
          image.add(Kind.raw, bytes, sectors: count, unpacked: bytes)
        default:
          bytes = content(count * 512, &random)
          image.add(kind, try pack(bytes), sectors: bytes.count / 512, unpacked: bytes)
        }
        disk += bytes
      }
      image.add(Kind.terminator, sectors: 0)
    }
    return BuiltImage(file: image.file, disk: disk, isJudged: isJudged)
  }

  private static func content(_ count: Int, _ random: inout SeededRandom) -> [UInt8] {
    switch random.below(3) {
    case 0: random.bytes(count)
    case 1: random.fill(count)
    default: Array(PackedSamples.text(count, from: random.below(1000)))
    }
  }
}
