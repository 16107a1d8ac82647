import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

extension ConformanceRow {
  static let engineVMDK = [
    made("sparse", mebibyte + 512, [:]),
    made("sparse, zeroed grains", mebibyte, ["zeroed_grain": "on"]),
    made("link", mebibyte, [:], baseSize: mebibyte / 2 + 512),
    made("link, zeroed grains", mebibyte, ["zeroed_grain": "on"], baseSize: mebibyte / 2 + 512),
    made("flat", 2 * mebibyte + 512, ["subformat": "monolithicFlat"]),
    made("split, sparse", mebibyte, ["subformat": "twoGbMaxExtentSparse"]) {
      $0.extentFile = ("image-s001", "extents.0")
    },
    ConformanceRow(
      name: "our vmdk, stream", format: "vmdk", size: mebibyte + 70 * 512,
      maker: .built { random in
        let disk = someDisk(mebibyte + 70 * 512, &random).bytes
        return BuiltImage(file: try VMDKStreamTests.packed(disk), disk: disk)
      }, isWritable: false),
  ]

  private static func made(
    _ name: String, _ size: Int, _ options: [String: String], baseSize: Int? = nil,
    _ change: (inout ConformanceRow) -> Void = { _ in }
  ) -> ConformanceRow {
    var row = ConformanceRow(
      name: "our vmdk, \(name)", format: "vmdk", size: size,
      maker: .engine(options: options, baseSize: baseSize), isWritable: true)
    change(&row)
    return row
  }

  static let judgeVMDK = [
    judged("sparse", 2 * mebibyte + 512, []),
    judged("sparse, zeroed grains", mebibyte, ["zeroed_grain=on"]),
    judged("link, zeroed grains", mebibyte, ["zeroed_grain=on"]) { $0.hasShortOwnBase = true },
    judged("flat", 2 * mebibyte, ["subformat=monolithicFlat"]),
    judged("split, flat", 2 * mebibyte, ["subformat=twoGbMaxExtentFlat"]),
    judged("split, sparse", 2 * mebibyte, ["subformat=twoGbMaxExtentSparse"]),
    packed("stream", mebibyte + 70 * 512),
  ]

  private static func judged(
    _ name: String, _ size: Int, _ options: [String], _ change: (inout JudgeImage) -> Void = { _ in }
  ) -> ConformanceRow {
    var recipe = JudgeImage(format: "vmdk", size: size, options: options, cluster: 65536)
    change(&recipe)
    return ConformanceRow(
      name: "vmdk, \(name)", format: "vmdk", size: size, maker: .judge(recipe), isWritable: true)
  }

  /// Packed grains, which are only read; made by the judge out of a raw disk.
  private static func packed(_ name: String, _ size: Int) -> ConformanceRow {
    ConformanceRow(
      name: "vmdk, \(name)", format: "vmdk", size: size,
      maker: .built { random in
        try TemporaryFolder.with { folder in
          let disk = someDisk(size, &random)
          try folder.write(disk.bytes, to: "disk.raw")
          try ReferenceTool.qemuImg(
            "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk.raw", "image",
            folder: folder.path)
          return BuiltImage(file: try Files.read(folder.file("image")), disk: disk.bytes)
        }
      }, isWritable: false)
  }

  private static func someDisk(_ size: Int, _ random: inout SeededRandom) -> ModelDisk {
    var disk = ModelDisk(byteCount: size)
    for _ in 0..<8 {
      let range = random.range(in: size, most: 150_000, unit: 65536)
      disk.write(
        random.oneIn(3) ? random.bytes(range.count) : random.fill(range.count), at: range.lowerBound)
    }
    return disk
  }
}
