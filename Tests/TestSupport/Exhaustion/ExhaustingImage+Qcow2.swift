import FormatEngine
import Foundation

/// The first cluster of a qcow2 image, field by field.
struct Qcow2Sketch {
  var clusterBits = 16
  var size: UInt64 = 1 << 20
  var l1: (offset: UInt64, count: Int) = (3 << 16, 1)
  var refcountTable: (offset: UInt64, clusters: Int) = (1 << 16, 1)
  var snapshots: (offset: UInt64, count: Int) = (0, 0)
  var incompatible: UInt64 = 0
  var autoclear: UInt64 = 0
  var compressionType: UInt8 = 0
  var extensions: [(type: UInt32, content: [UInt8])] = []
  var backing = ""

  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: UInt32(0x5146_49fb))
    bytes.append(bigEndian: UInt32(3))
    var tail: [UInt8] = []
    for (type, content) in extensions {
      tail.append(bigEndian: type)
      tail.append(bigEndian: UInt32(content.count))
      tail += content
      tail.pad(toMultipleOf: 8)
    }
    tail.append(bigEndian: UInt64(0))
    bytes.append(bigEndian: UInt64(backing.isEmpty ? 0 : 112 + tail.count))
    bytes.append(bigEndian: UInt32(backing.utf8.count))
    bytes.append(bigEndian: UInt32(clusterBits))
    bytes.append(bigEndian: size)
    bytes.append(bigEndian: UInt32(0))
    bytes.append(bigEndian: UInt32(l1.count))
    bytes.append(bigEndian: l1.offset)
    bytes.append(bigEndian: refcountTable.offset)
    bytes.append(bigEndian: UInt32(refcountTable.clusters))
    bytes.append(bigEndian: UInt32(snapshots.count))
    bytes.append(bigEndian: snapshots.offset)
    for features in [incompatible, 0, autoclear] { bytes.append(bigEndian: features) }
    bytes.append(bigEndian: UInt32(4))
    bytes.append(bigEndian: UInt32(112))
    bytes.append(compressionType)
    bytes.pad(toMultipleOf: 8)
    return bytes + tail + Array(backing.utf8)
  }

  /// The header in a file of which nothing else is there, with a refcount block that counts the first clusters.
  func write(to path: String, byteCount: UInt64) throws -> SparseFile {
    let file = try SparseFile(path, byteCount: byteCount)
    try file.write(bytes, at: 0)
    let block = refcountTable.offset + UInt64(refcountTable.clusters) << UInt64(clusterBits)
    try file.put(bigEndian: block, at: refcountTable.offset)
    try file.write(repeating: [0, 1], count: min(64, 1 << (clusterBits - 1)), at: block)
    return file
  }

  /// An entry of the snapshot table.
  static func snapshot(_ index: Int, l1Offset: UInt64, nameLength: Int, extraLength: Int = 16) -> [UInt8] {
    let name = Array("\(index)".utf8)
    var bytes: [UInt8] = []
    bytes.append(bigEndian: l1Offset)
    bytes.append(bigEndian: UInt32(1))
    bytes.append(bigEndian: UInt16(name.count))
    bytes.append(bigEndian: UInt16(nameLength))
    bytes += [UInt8](repeating: 0, count: 20)
    bytes.append(bigEndian: UInt32(extraLength))
    bytes.append(bigEndian: UInt64(0))
    bytes.append(bigEndian: UInt64(1 << 20))
    bytes += [UInt8](repeating: 0x65, count: extraLength - 16) + name + name
    bytes += [UInt8](repeating: 0x6e, count: nameLength - name.count)
    bytes.pad(toMultipleOf: 8)
    return bytes
  }

  /// An entry of the list of bitmaps.
  static func bitmap(
    _ index: Int, tableOffset: UInt64, tableCount: Int, granularityBits: UInt8, nameLength: Int
  )
    -> [UInt8]
  {
    let name = Array("\(index)".utf8)
    var bytes: [UInt8] = []
    bytes.append(bigEndian: tableOffset)
    bytes.append(bigEndian: UInt32(tableCount))
    bytes.append(bigEndian: UInt32(2))
    bytes += [1, granularityBits]
    bytes.append(bigEndian: UInt16(nameLength))
    bytes.append(bigEndian: UInt32(0))
    bytes += name + [UInt8](repeating: 0x62, count: nameLength - name.count)
    bytes.pad(toMultipleOf: 8)
    return bytes
  }
}

extension ExhaustingImage {
  private static let mebibyte: UInt64 = 1 << 20

  static let qcow2: [ExhaustingImage] =
    snapshots + bitmaps + [
      ExhaustingImage("qcow2: L1 table of 32 MiB in a hole") { folder in
        let sketch = Qcow2Sketch(size: 1 << 51, l1: (64 * mebibyte, 1 << 22))
        _ = try sketch.write(to: folder.file("image"), byteCount: 96 * mebibyte)
      },
      ExhaustingImage(
        // A mount has the table in memory while it writes a map of 64 MiB.
        "qcow2: L1 table of 32 MiB, all of it one L2 table of one cluster",
        endless: ["check", "map", "measure"], needed: ["check": 32, "mount": 32]
      ) { folder in
        let sketch = Qcow2Sketch(size: 1 << 51, l1: (64 * mebibyte, 1 << 22))
        let file = try sketch.write(to: folder.file("image"), byteCount: 96 * mebibyte)
        try file.write(repeating: [0x80, 0, 0, 0, 0, 0x10, 0, 0], count: 1 << 22, at: 64 * mebibyte)
        try file.write(repeating: [0x80, 0, 0, 0, 0, 0x20, 0, 0], count: 8192, at: mebibyte)
      },
      ExhaustingImage(
        "qcow2: L1 table of 32 MiB, all of it one L2 table of packed clusters",
        endless: ["check", "map", "measure"], needed: ["check": 32]
      ) { folder in
        let sketch = Qcow2Sketch(size: 1 << 51, l1: (64 * mebibyte, 1 << 22))
        let file = try sketch.write(to: folder.file("image"), byteCount: 96 * mebibyte)
        try file.write(repeating: [0x80, 0, 0, 0, 0, 0x10, 0, 0], count: 1 << 22, at: 64 * mebibyte)
        try file.write(repeating: [0x40, 0, 0, 0, 0, 0x20, 0, 1], count: 8192, at: mebibyte)
      },
      ExhaustingImage("qcow2: disk of 2^63 - 1 bytes") { folder in
        let sketch = Qcow2Sketch(
          clusterBits: 21, size: UInt64(Int64.max), l1: (64 * mebibyte, 1 << 24),
          refcountTable: (2 * mebibyte, 1))
        _ = try sketch.write(to: folder.file("image"), byteCount: 256 * mebibyte)
      },
      ExhaustingImage("qcow2: the largest disk, 2^61 bytes", endless: ["check"]) { folder in
        let sketch = Qcow2Sketch(
          clusterBits: 21, size: 1 << 61, l1: (64 * mebibyte, 1 << 22), refcountTable: (2 * mebibyte, 1))
        _ = try sketch.write(to: folder.file("image"), byteCount: 128 * mebibyte)
      },
      ExhaustingImage("qcow2: refcount table of 8 MiB in a hole") { folder in
        let sketch = Qcow2Sketch(refcountTable: (64 * mebibyte, 128))
        _ = try sketch.write(to: folder.file("image"), byteCount: 96 * mebibyte)
      },
      ExhaustingImage("qcow2: refcount table of 8 MiB, all of it one block", endless: ["check"]) { folder in
        let sketch = Qcow2Sketch(refcountTable: (64 * mebibyte, 128))
        let file = try sketch.write(to: folder.file("image"), byteCount: 96 * mebibyte)
        try file.write(repeating: [0, 0, 0, 0, 0, 0x10, 0, 0], count: 1 << 20, at: 64 * mebibyte)
        try file.write(repeating: [0xff, 0xff], count: 1 << 15, at: mebibyte)
      },
      // Counts for 20 million clusters at a time are 40 MiB; more of the file is looked at in turns.
      ExhaustingImage("qcow2: a file of 8 TiB in clusters of 512 bytes", endless: ["check"]) { folder in
        let sketch = Qcow2Sketch(
          clusterBits: 9, size: 1 << 37, l1: (64 * mebibyte, 1 << 22), refcountTable: (128 * mebibyte, 16384))
        _ = try sketch.write(to: folder.file("image"), byteCount: 1 << 43)
      },
      ExhaustingImage("qcow2: 250,000 header extensions") { folder in
        var sketch = Qcow2Sketch(clusterBits: 21, l1: (6 * mebibyte, 1), refcountTable: (2 * mebibyte, 1))
        sketch.extensions = (0..<250_000).map { (UInt32(0x1234_0000 + $0), []) }
        _ = try sketch.write(to: folder.file("image"), byteCount: 8 * mebibyte)
      },
      ExhaustingImage("qcow2: 43,000 names for unknown features") { folder in
        var sketch = Qcow2Sketch(clusterBits: 21, l1: (6 * mebibyte, 1), refcountTable: (2 * mebibyte, 1))
        let names = (0..<43_000).flatMap { index -> [UInt8] in
          [0, UInt8(index % 64)] + [UInt8](repeating: 0x66, count: 46)
        }
        (sketch.incompatible, sketch.extensions) = (~0x1f, [(0x6803_f857, names)])
        _ = try sketch.write(to: folder.file("image"), byteCount: 8 * mebibyte)
      },
      ExhaustingImage("qcow2: a data file whose name is a JSON object 20,000 levels deep") { folder in
        var sketch = Qcow2Sketch(clusterBits: 21, l1: (6 * mebibyte, 1), refcountTable: (2 * mebibyte, 1))
        let name = "json:" + String(repeating: "{\"file\":", count: 20_000)
        (sketch.incompatible, sketch.extensions) = (4, [(0x4441_5441, Array(name.utf8))])
        _ = try sketch.write(to: folder.file("image"), byteCount: 8 * mebibyte)
      },
      ExhaustingImage("qcow2: a data file whose name is a JSON list of 2 MiB") { folder in
        var sketch = Qcow2Sketch(clusterBits: 21, l1: (6 * mebibyte, 1), refcountTable: (2 * mebibyte, 1))
        let name = "json:{\"driver\":[" + String(repeating: "1,", count: 1_000_000) + "1]}"
        (sketch.incompatible, sketch.extensions) = (4, [(0x4441_5441, Array(name.utf8))])
        _ = try sketch.write(to: folder.file("image"), byteCount: 8 * mebibyte)
      },
      ExhaustingImage("qcow2: a backing file whose name is a JSON object 120 levels deep") { folder in
        let name = "json:" + String(repeating: "{\"a\":", count: 120)
        var sketch = Qcow2Sketch()
        sketch.backing = name + "1" + String(repeating: "}", count: 120)
        _ = try sketch.write(to: folder.file("image"), byteCount: mebibyte)
      },
      packedBomb("zlib"), packedBomb("zstd"),
    ]

  /// 2 MiB of zeros packed as one cluster, where clusters are 4 KiB.
  private static func packedBomb(_ method: String) -> ExhaustingImage {
    ExhaustingImage("qcow2: packed bomb, \(method)") { folder in
      let options = "cluster_size=2M,compression_type=\(method)"
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", options, "large", "4M", folder: folder.path)
      try ReferenceTool.io(["write -q -c -P 7 0 2M"], on: "large", format: "qcow2", folder: folder.path)
      let large = try SparseFile(updating: folder.file("large"))
      func number(_ offset: UInt64) throws -> UInt64 {
        try large.bytes(at: offset, count: 8).reduce(0) { $0 << 8 | UInt64($1) }
      }
      let table = try number(try number(40)) & 0x00ff_ffff_ffff_fe00
      let packed = try large.bytes(at: try number(table) & (1 << 49 - 1), count: 4096)
      var sketch = Qcow2Sketch(clusterBits: 12, l1: (3 << 12, 1), refcountTable: (1 << 12, 1))
      if method == "zstd" { (sketch.incompatible, sketch.compressionType) = (8, 1) }
      let file = try sketch.write(to: folder.file("image"), byteCount: 32 << 12)
      try file.put(bigEndian: UInt64(1) << 63 | 4 << 12, at: 3 << 12)
      // 62 - (12 - 8) bits of offset, then seven further sectors.
      for index in 0..<256 as Range<UInt64> {
        try file.put(bigEndian: UInt64(1) << 62 | 7 << 58 | 5 << 12, at: 4 << 12 + 8 * index)
      }
      try file.write(packed, at: 5 << 12)
    }
  }

  // MARK: Lists

  /// A mount shows each of 65536 twice, as a folder: 131,072 nodes of some 400 bytes.
  private static let shownSnapshots = ["mount": 64]

  private static let snapshots = [
    ExhaustingImage("qcow2: 65536 snapshots, each with a table", needed: shownSnapshots) { folder in
      let sketch = Qcow2Sketch(
        clusterBits: 9, l1: (3 << 9, 32), refcountTable: (1 << 9, 1),
        snapshots: (64 * mebibyte, 65536))
      let file = try sketch.write(to: folder.file("image"), byteCount: 72 * mebibyte)
      var table: [UInt8] = []
      for index in 0..<65536 {
        let l1 = mebibyte + UInt64(index) << 9
        table += Qcow2Sketch.snapshot(index + 1, l1Offset: l1, nameLength: 8)
      }
      try file.write(table, at: 64 * mebibyte)
      try file.write(
        repeating: [0x80, 0, 0, 0, 0, 0x08, 0, 0] + [UInt8](repeating: 0, count: 504), count: 65536,
        at: mebibyte)
    },
    // Of each name 255 bytes are shown: 16 MiB, in the list and as the name of a folder.
    ExhaustingImage("qcow2: snapshots with names of 64 MiB together", needed: ["mount": 64 + 4 * 16]) {
      folder in
      try writeSnapshots(count: 65535, nameLength: 940, to: folder.file("image"))
    },
    ExhaustingImage(
      "qcow2: snapshots with extra fields of 64 MiB together", needed: shownSnapshots, isHeavy: true
    ) { folder in
      try writeSnapshots(count: 60_000, nameLength: 6, extraLength: 1024, to: folder.file("image"))
    },
    ExhaustingImage("qcow2: 1000 snapshots with names of 64 KiB") { folder in
      try writeSnapshots(count: 1000, nameLength: 65_000, to: folder.file("image"))
    },
    ExhaustingImage(
      "qcow2: 65536 snapshots of one L1 table of 32 MiB", endless: ["check"], needed: shownSnapshots
    ) { folder in
      let sketch = Qcow2Sketch(snapshots: (mebibyte, 65536))
      let file = try sketch.write(to: folder.file("image"), byteCount: 96 * mebibyte)
      var table: [UInt8] = []
      for index in 0..<65536 {
        var entry = Qcow2Sketch.snapshot(index + 1, l1Offset: 64 * mebibyte, nameLength: 8)
        entry.put(bigEndian: UInt32(1 << 22), at: 8)
        table += entry
      }
      try file.write(table, at: mebibyte)
      try file.write(repeating: [0x80, 0, 0, 0, 0, 0x04, 0, 0], count: 1 << 22, at: 64 * mebibyte)
    },
  ]

  /// An image with a snapshot table of up to 64 MiB.
  static func writeSnapshots(
    count: Int, nameLength: Int, extraLength: Int = 16, backing: String = "", to path: String
  ) throws {
    var sketch = Qcow2Sketch(snapshots: (mebibyte, count))
    sketch.backing = backing
    let file = try sketch.write(to: path, byteCount: 66 * mebibyte)
    var (piece, place): ([UInt8], UInt64) = ([], mebibyte)
    for index in 0..<count {
      piece += Qcow2Sketch.snapshot(
        index + 1, l1Offset: 3 << 16, nameLength: nameLength, extraLength: extraLength)
      guard piece.count > 1 << 20 || index == count - 1 else { continue }
      try file.write(piece, at: place)
      place += UInt64(piece.count)
      piece.removeAll(keepingCapacity: true)
    }
  }

  private static let bitmaps = [
    ExhaustingImage("qcow2: 65535 bitmaps with short names") { folder in
      try writeBitmaps(count: 65535, nameLength: 8, to: folder.file("image"))
    },
    // The names are 64 MiB, and `info` shows all of them. A mount makes a text of them, up to 64 MiB.
    ExhaustingImage(
      "qcow2: 65535 bitmaps with names of 64 MiB together",
      needed: [
        "info": 64, "info --backing-chain": 64, "info -U": 64, "measure": 64, "check": 64, "mount": 144,
      ],
      isHeavy: true
    ) { folder in
      try writeBitmaps(count: 65535, nameLength: 1000, to: folder.file("image"))
    },
    ExhaustingImage("qcow2: 65535 bitmaps with 512 MiB of bits each, all in one table", endless: ["check"]) {
      folder in
      try writeBitmaps(
        count: 65535, nameLength: 8, size: 1 << 41, granularityBits: 9, to: folder.file("image"))
    },
  ]

  /// An image with a list of bitmaps of up to 64 MiB, whose tables are one.
  private static func writeBitmaps(
    count: Int, nameLength: Int, size: UInt64 = mebibyte, granularityBits: UInt8 = 16, to path: String
  ) throws {
    var sketch = Qcow2Sketch(size: size, l1: (128 * mebibyte, Int((size + 1 << 29 - 1) >> 29)))
    let tables = Int(max(size >> (UInt64(granularityBits) + 3 + 16), 1))
    let directory = UInt64(32) * mebibyte
    let table = mebibyte
    var list: [UInt8] = []
    for index in 0..<count {
      list += Qcow2Sketch.bitmap(
        index, tableOffset: table, tableCount: tables, granularityBits: granularityBits,
        nameLength: nameLength)
    }
    var content: [UInt8] = []
    content.append(bigEndian: UInt32(count))
    content.append(bigEndian: UInt32(0))
    content.append(bigEndian: UInt64(list.count))
    content.append(bigEndian: directory)
    (sketch.autoclear, sketch.extensions) = (1, [(0x2385_2875, content)])
    let file = try sketch.write(to: path, byteCount: 192 * mebibyte)
    try file.write(list, at: directory)
  }

  // MARK: Chains

  static let chains: [ExhaustingImage] = [
    ExhaustingImage("chain of 200 qcow2 images", name: "image") { folder in
      try writeChain(200, in: folder) { backing, path in
        var sketch = Qcow2Sketch()
        sketch.backing = backing
        _ = try sketch.write(to: path, byteCount: mebibyte)
      }
    },
    // 150 times 4 million entries to look at.
    ExhaustingImage("chain of 150 qcow2 images with L1 tables of 32 MiB", endless: ["map", "measure"]) {
      folder in
      try writeChain(150, in: folder) { backing, path in
        var sketch = Qcow2Sketch(size: 1 << 51, l1: (64 * mebibyte, 1 << 22))
        sketch.backing = backing
        _ = try sketch.write(to: path, byteCount: 96 * mebibyte)
      }
    },
    ExhaustingImage("chain of 12 qcow2 images with 64 MiB of snapshots' names each") { folder in
      try writeChain(12, in: folder) { backing, path in
        try writeSnapshots(count: 1000, nameLength: 65_000, backing: backing, to: path)
      }
    },
    ExhaustingImage("qcow2 image over itself") { folder in
      var sketch = Qcow2Sketch()
      sketch.backing = "image"
      _ = try sketch.write(to: folder.file("image"), byteCount: mebibyte)
    },
    ExhaustingImage("two qcow2 images over each other") { folder in
      for (name, backing) in [("image", "other"), ("other", "./image")] {
        var sketch = Qcow2Sketch()
        sketch.backing = backing
        _ = try sketch.write(to: folder.file(name), byteCount: mebibyte)
      }
    },
  ]

  private static func writeChain(
    _ count: Int, in folder: TemporaryFolder, write: (_ backing: String, _ path: String) throws -> Void
  ) throws {
    for index in 0..<count {
      try write(
        index == count - 1 ? "" : "image\(index + 1)", folder.file(index == 0 ? "image" : "image\(index)"))
    }
  }
}
