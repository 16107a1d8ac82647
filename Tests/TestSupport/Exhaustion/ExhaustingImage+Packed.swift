import FormatEngine
import Foundation

/// A UDIF image: the data fork, the map behind it, the trailer at the end.
struct DMGSketch {
  /// Bytes of the data fork.
  var fork: [UInt8] = []
  var sectorCount: UInt64 = 0
  var rows: [UInt8] = []

  static let (zeros, zlib, bzip2, lzma): (UInt32, UInt32, UInt32, UInt32) = (
    0, 0x8000_0005, 0x8000_0006, 0x8000_0008
  )

  mutating func add(_ kind: UInt32, sectors: UInt64, _ bytes: [UInt8] = []) {
    for field in [kind, 0] { rows.append(bigEndian: field) }
    for field in [sectorCount, sectors, UInt64(fork.count), UInt64(bytes.count)] {
      rows.append(bigEndian: field)
    }
    fork += bytes
    sectorCount += sectors
  }

  /// The block table with all chunks.
  var table: [UInt8] {
    var bytes: [UInt8] = []
    for field in [0x6d69_7368, 1] as [UInt32] { bytes.append(bigEndian: field) }
    for field in [0, sectorCount, 0] as [UInt64] { bytes.append(bigEndian: field) }
    bytes += [UInt8](repeating: 0, count: 200 - bytes.count)
    bytes.append(bigEndian: UInt32(rows.count / 40))
    return bytes + rows
  }

  static let listHead = """
    <?xml version="1.0" encoding="UTF-8"?>
    <plist version="1.0"><dict><key>resource-fork</key><dict><key>blkx</key><array>
    """

  static func list(_ table: [UInt8], _ more: String = "") -> [UInt8] {
    let data = Foundation.Data(table).base64EncodedString()
    return Array(
      (listHead + "<dict><key>Data</key><data>\(data)</data></dict>\(more)</array></dict></dict></plist>")
        .utf8)
  }

  /// A resource fork with nothing but the table.
  static func resourceFork(_ table: [UInt8]) -> [UInt8] {
    var fork: [UInt8] = []
    for number in [256, 260 + table.count, 4 + table.count, 50] { fork.append(bigEndian: UInt32(number)) }
    fork += [UInt8](repeating: 0, count: 240)
    fork.append(bigEndian: UInt32(table.count))
    fork += table + [UInt8](repeating: 0, count: 24)
    for number in [28, 50, 0] { fork.append(bigEndian: UInt16(number)) }
    fork += Array("blkx".utf8)
    for number in [0, 10] { fork.append(bigEndian: UInt16(number)) }
    for number in [0xffff, 0, 0] { fork.append(bigEndian: UInt32(number)) }
    return fork
  }

  func write(list: [UInt8] = [], resourceFork: [UInt8] = [], to path: String) throws {
    var trailer = [UInt8](repeating: 0, count: 512)
    trailer.put(bigEndian: UInt32(0x6b6f_6c79), at: 0)
    trailer.put(bigEndian: UInt32(4), at: 4)
    trailer.put(bigEndian: UInt32(512), at: 8)
    let parts = [
      (24, 0, fork.count), (216, fork.count, list.count), (40, fork.count + list.count, resourceFork.count),
    ]
    for (field, offset, count) in parts where count > 0 {
      trailer.put(bigEndian: UInt64(offset), at: field)
      trailer.put(bigEndian: UInt64(count), at: field + 8)
    }
    trailer.put(bigEndian: UInt64(0x1_0000_0001), at: 56)
    trailer.put(bigEndian: sectorCount, at: 492)
    let file = try SparseFile(path)
    try file.write(fork + list + resourceFork + trailer, at: 0)
  }
}

extension ExhaustingImage {
  private static let packedName = "image.dmg"

  /// Formats of packed blocks.
  static let packed: [ExhaustingImage] = [
    millionChunks("in a property list") { try $0.write(list: DMGSketch.list($0.table), to: $1) },
    millionChunks("in a resource fork") {
      try $0.write(resourceFork: DMGSketch.resourceFork($0.table), to: $1)
    },
    list("60 MiB of text") { "<a>" + String(repeating: "0123456789abcdef", count: 60 << 16) + "</a>" },
    list("60 MiB of lines") { "<a>" + String(repeating: "0123456789abcd\n", count: 60 << 16) + "</a>" },
    list("200,000 elements") { String(repeating: "<a/>", count: 199_000) },
    list("3 million attributes") {
      "<a" + (0..<3_000_000).map { " a\($0)=''" }.joined() + "/>"
    },
    list("names of 60 MiB") {
      "<" + String(repeating: "0123456789abcdef", count: 60 << 16).replacing("0", with: "g") + "/>"
    },
    list("a million levels") { String(repeating: "<a>", count: 1_000_000) },
    list("entities that grow") { "&a;" },
    list("tables of nothing") {
      let data = Foundation.Data(DMGSketch().table).base64EncodedString()
      return String(repeating: "<dict><key>Data</key><data>\(data)</data></dict>", count: 45_000)
    },
    dmgBomb("zlib", DMGSketch.zlib), dmgBomb("bz2", DMGSketch.bzip2), dmgBomb("lzma", DMGSketch.lzma),
    // The largest chunk and what it is packed to are in memory, both of at most 64 MiB.
    ExhaustingImage(
      "dmg: chunk of 64 MiB that is packed to as much", name: packedName,
      needed: ["dd": 64, "check": 64, "mount": 64]
    ) { folder in
      var sketch = DMGSketch()
      let program = """
        import zlib, random
        data = random.Random(7).randbytes(63 << 20)
        open("bomb", "wb").write(zlib.compress(data, 0))
        """
      try TestProcess.run(["/usr/bin/python3", "-c", program], folder: folder.path).expecting()
      sketch.add(DMGSketch.zlib, sectors: 63 << 11, try Files.read(folder.file("bomb")))
      try sketch.write(list: DMGSketch.list(sketch.table), to: folder.file(packedName))
    },
    ExhaustingImage("cloop: packed bomb in a block of 64 MiB") { folder in
      let packed = try bomb("zlib", in: folder)
      try writeCLoop(
        blockSize: 64 << 20, blockCount: 2, offsets: { 160 + $0 * UInt64(packed.count) }, to: folder
      ) {
        try $0.write(packed + packed, at: 160)
      }
    },
    emptyCLoop(blockCount: 1 << 20, isHeavy: false), emptyCLoop(blockCount: 1 << 26 - 2, isHeavy: true),
    ExhaustingImage("cloop: 67 million offsets in a hole") { folder in
      try writeCLoop(blockSize: 65536, blockCount: 1 << 26 - 2, offsets: nil, to: folder) {
        try $0.resize(to: 1 << 30)
      }
    },
  ]

  private static func millionChunks(
    _ what: String, _ write: @escaping @Sendable (DMGSketch, String) throws -> Void
  ) -> ExhaustingImage {
    // The map of the image: 48 bytes for each chunk.
    let map = 46
    return ExhaustingImage(
      "dmg: a million chunks \(what)", name: packedName, endless: ["check", "map", "measure"],
      needed: [
        "info": map, "info --backing-chain": map, "info -U": map, "check": map, "map": map, "measure": map,
        "snapshot": map, "dd": map, "mount": map,
      ]
    ) { folder in
      var sketch = DMGSketch()
      // Zeros for a sector each, and a few bytes between: no two are one run.
      var rows = [UInt8]()
      rows.reserveCapacity(40 << 20)
      for index in 0..<1_000_000 as Range<UInt64> {
        rows += [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]
        for shift in [24, 16, 8, 0] as [UInt64] { rows.append(UInt8(truncatingIfNeeded: index >> shift)) }
        rows += [0, 0, 0, 0, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 16)
      }
      (sketch.rows, sketch.sectorCount) = (rows, 1_000_000)
      try write(sketch, folder.file(packedName))
    }
  }

  /// A property list with more in it than a map.
  private static func list(_ what: String, _ more: @escaping @Sendable () -> String) -> ExhaustingImage {
    ExhaustingImage("dmg: property list with \(what)", name: packedName) { folder in
      var sketch = DMGSketch()
      sketch.add(DMGSketch.zeros, sectors: 8)
      try sketch.write(list: DMGSketch.list(sketch.table, more()), to: folder.file(packedName))
    }
  }

  private static func dmgBomb(_ codec: String, _ kind: UInt32) -> ExhaustingImage {
    ExhaustingImage("dmg: packed bomb, \(codec)", name: packedName) { folder in
      var sketch = DMGSketch()
      sketch.add(kind, sectors: 64 << 11, try bomb(codec, in: folder))
      sketch.add(kind, sectors: 1, try bomb(codec, mebibytes: 200, in: folder))
      try sketch.write(list: DMGSketch.list(sketch.table), to: folder.file(packedName))
    }
  }

  // MARK: cloop

  private static func writeCLoop(
    blockSize: UInt32, blockCount: UInt32, offsets: ((UInt64) -> UInt64)?, to folder: TemporaryFolder,
    _ rest: (SparseFile) throws -> Void
  ) throws {
    let file = try SparseFile(folder.file("image"))
    let script =
      "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n"
    try file.write(Array(script.utf8), at: 0)
    try file.put(bigEndian: blockSize, at: 128)
    try file.put(bigEndian: blockCount, at: 132)
    if let offsets {
      for index in 0...UInt64(blockCount) { try file.put(bigEndian: offsets(index), at: 136 + 8 * index) }
    }
    try rest(file)
  }

  /// Blocks without bytes.
  private static func emptyCLoop(blockCount: UInt32, isHeavy: Bool) -> ExhaustingImage {
    let endless: Set = isHeavy ? ["check", "map", "measure"] : ["check"]
    return ExhaustingImage("cloop: \(blockCount) blocks without bytes", endless: endless, isHeavy: isHeavy) {
      folder in
      try writeCLoop(blockSize: 65536, blockCount: blockCount, offsets: nil, to: folder) { file in
        let end = 136 + 8 * (UInt64(blockCount) + 1)
        var entry: [UInt8] = []
        entry.append(bigEndian: end)
        try file.write(repeating: entry, count: Int(blockCount) + 1, at: 136)
        try file.resize(to: end + 512)
      }
    }
  }
}
