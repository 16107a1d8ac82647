import FormatEngine
import Foundation

/// The header of a sparse extent, and where its tables are.
struct VMDKSketch {
  var flags: UInt32 = 1
  var compression: UInt16 = 0
  var capacity: UInt64 = 2048
  var grainSectors: UInt64 = 128
  var directorySector: UInt64 = 2048
  var redundantSector: UInt64 = 0
  var descriptorSectors: UInt64 = 20

  var bytes: [UInt8] {
    var bytes = Array("KDMV".utf8)
    for field in [1, flags] { bytes.append(littleEndian: field) }
    for field in [capacity, grainSectors, 1, descriptorSectors] { bytes.append(littleEndian: field) }
    bytes.append(littleEndian: UInt32(512))
    for field in [redundantSector, directorySector, 128] { bytes.append(littleEndian: field) }
    bytes += [0, 0x0a, 0x20, 0x0d, 0x0a]
    bytes.append(littleEndian: compression)
    return bytes
  }

  /// With the descriptor that belongs to it.
  func write(to path: String, byteCount: UInt64, type: String = "monolithicSparse") throws -> SparseFile {
    let file = try SparseFile(path, byteCount: byteCount)
    try file.write(bytes, at: 0)
    try file.write(
      Self.descriptor(["RW \(capacity) SPARSE \"\((path as NSString).lastPathComponent)\""], type), at: 512)
    return file
  }

  static func descriptor(_ lines: [String], _ type: String = "custom") -> [UInt8] {
    let head = [
      "# Disk DescriptorFile", "version=1", "CID=deadbee1", "parentCID=ffffffff", "createType=\"\(type)\"",
    ]
    return Array((head + lines + ["ddb.adapterType = \"ide\"", ""]).joined(separator: "\n").utf8)
  }
}

extension ExhaustingImage {
  private static let mebibyte: UInt64 = 1 << 20
  /// 32 MiB of directory: 2 TiB in grains of a sector.
  private static let largest = VMDKSketch(
    flags: 3, capacity: 1 << 32, grainSectors: 1, directorySector: 128 << 11, redundantSector: 64 << 11)

  static let vmdk: [ExhaustingImage] = [
    ExhaustingImage("vmdk: 65535 extents of zeros") { folder in
      try folder.write(
        VMDKSketch.descriptor([String](repeating: "RW 1 ZERO", count: 65_535)), to: "image")
    },
    ExhaustingImage("vmdk: 70,000 extents of zeros") { folder in
      try folder.write(
        VMDKSketch.descriptor([String](repeating: "RW 1 ZERO", count: 70_000)), to: "image")
    },
    ExhaustingImage("vmdk: 6000 flat extents of one file") { folder in
      try folder.write([UInt8](repeating: 1, count: 512), to: "e")
      try folder.write(
        VMDKSketch.descriptor([String](repeating: "RW 1 FLAT \"e\" 0", count: 6000)), to: "image")
    },
    ExhaustingImage("vmdk: 4000 sparse extents of one file") { folder in
      _ = try VMDKSketch().write(to: folder.file("e"), byteCount: 4 * mebibyte)
      try folder.write(
        VMDKSketch.descriptor([String](repeating: "RW 2048 SPARSE \"e\"", count: 4000)), to: "image")
    },
    // 4 PiB of disk, with 16 billion tables.
    ExhaustingImage(
      "vmdk: 2000 sparse extents of one file, with a directory of 32 MiB", endless: ["check", "map"]
    ) { folder in
      let file = try largest.write(to: folder.file("e"), byteCount: 256 * mebibyte)
      try file.write(repeating: [0, 0, 3, 0], count: 1 << 23, at: 128 * mebibyte)
      try folder.write(
        VMDKSketch.descriptor([String](repeating: "RW \(1 << 32) SPARSE \"e\"", count: 2000)), to: "image")
    },
    ExhaustingImage("vmdk: descriptor of 4 MiB, one line") { folder in
      let line = "ddb.comment = \"" + String(repeating: "x", count: 4_000_000) + "\""
      try folder.write(VMDKSketch.descriptor(["RW 1 ZERO", line]), to: "image")
    },
    ExhaustingImage("vmdk: descriptor of 4 MiB, 300,000 settings") { folder in
      let lines = (0..<300_000).map { "d.\($0)=1" }
      try folder.write(VMDKSketch.descriptor(["RW 1 ZERO"] + lines), to: "image")
    },
    ExhaustingImage("vmdk: parent whose name is 3 MiB of JSON") { folder in
      let name = "json:" + String(repeating: "[", count: 3 << 20)
      var text = String(decoding: VMDKSketch.descriptor(["RW 1 ZERO"]), as: UTF8.self)
      text = text.replacing("parentCID=ffffffff", with: "parentCID=00000001\nparentFileNameHint=\"\(name)\"")
      try folder.write(Array(text.utf8), to: "image")
    },
    ExhaustingImage("vmdk: directories of 32 MiB in holes, grains of a sector", endless: ["check"]) {
      folder in
      _ = try largest.write(to: folder.file("image"), byteCount: 256 * mebibyte)
    },
    ExhaustingImage(
      "vmdk: directory of 32 MiB, all of it one table, grains of a sector",
      endless: ["check", "map", "measure"]
    ) { folder in
      let file = try largest.write(to: folder.file("image"), byteCount: 256 * mebibyte)
      try file.write(repeating: [0, 0, 3, 0], count: 1 << 23, at: 128 * mebibyte)
      try file.write(repeating: [0, 8, 3, 0], count: 512, at: 96 * mebibyte)
    },
    ExhaustingImage("vmdk: packed bomb in grains of 2 MiB") { folder in
      let sketch = VMDKSketch(flags: 0x30001, compression: 1, capacity: 4096 * 512, grainSectors: 4096)
      let file = try sketch.write(
        to: folder.file("image"), byteCount: 8 * mebibyte, type: "streamOptimized")
      try file.put(littleEndian: UInt32(4096), at: mebibyte)
      try file.write(repeating: [0, 0x20, 0, 0], count: 512, at: 2 * mebibyte)
      let bomb = try bomb("zlib", in: folder)
      try file.put(littleEndian: UInt64(0), at: 4 * mebibyte)
      try file.put(littleEndian: UInt32(bomb.count), at: 4 * mebibyte + 8)
      try file.write(bomb, at: 4 * mebibyte + 12)
    },
  ]
}
