import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

extension ConformanceRow {
  /// Every kind of image. A new format adds its rows here.
  static let all: [ConformanceRow] = [
    raw, engineQcow2, judgeQcow2,
    engineQcow, judgeQcow, engineQED, judgeQED,
    engineVMDK, judgeVMDK,
    engineVDI, judgeVDI,
    vpc,
    vhdx, judgeVHDX,
    parallels,
    luks,
    dmg, cloop, bochs,
  ].flatMap { $0 }

  /// Those that the engine can change.
  static let writable = all.filter { $0.isWritable }

  /// Those whose bytes are damaged: the judge's images have everything that ours have, and more.
  static let hostile: [ConformanceRow] = [
    raw, judgeQcow2,
    judgeQcow, judgeQED,
    judgeVMDK,
    judgeVDI,
    vpc.filter { !$0.name.hasPrefix("our") },
    judgeVHDX,
    parallels.filter { $0.name.hasPrefix("parallels") },
    [judgeLUKS],
    dmg, cloop, bochs,
  ].flatMap { $0 }

  private static let raw = [
    ConformanceRow(
      name: "raw", format: "raw", size: 3 * mebibyte + 512, maker: .engine(options: [:], baseSize: nil),
      isWritable: true)
  ]

  private static let engineQcow2 = [
    made("512 B clusters", mebibyte / 2 + 512, ["cluster_size": "512"]),
    made("64 KiB clusters", 4 * mebibyte + 512, [:]),
    made("2 MiB clusters", 9 * mebibyte, ["cluster_size": "2M"]),
    made("version 2", 2 * mebibyte, ["compat": "0.10"]),
    made(
      "version 2, backing", 2 * mebibyte, ["compat": "0.10", "cluster_size": "4k"], baseSize: mebibyte + 512),
    made("backing", 2 * mebibyte, ["cluster_size": "16k"], baseSize: mebibyte + 512),
    made("subclusters", 4 * mebibyte, ["extended_l2": "on"]),
    made("subclusters, backing", 2 * mebibyte, ["extended_l2": "on"], baseSize: mebibyte + 512),
    made("data file", 2 * mebibyte, ["data_file": "image.data"]),
    made("raw data file", 2 * mebibyte, ["data_file": "image.data", "data_file_raw": "on"]),
    made("preallocated metadata", 2 * mebibyte, ["preallocation": "metadata"]),
    made("1-bit refcounts", mebibyte, ["cluster_size": "4k", "refcount_bits": "1"]),
    encrypted("LUKS", mebibyte + 512, ["encrypt.format": "luks", "encrypt.iter-time": "1"]),
    encrypted(
      "LUKS, subclusters, backing", mebibyte,
      ["encrypt.format": "luks", "encrypt.iter-time": "1", "extended_l2": "on"], baseSize: mebibyte / 2 + 512),
    encrypted("AES", mebibyte, ["encrypt.format": "aes", "cluster_size": "16k"]),
    encrypted("AES, version 2", mebibyte, ["encryption": "on", "compat": "0.10"]),
    encrypted(
      "LUKS, data file", mebibyte,
      ["encrypt.format": "luks", "encrypt.iter-time": "1", "data_file": "image.data"]),
    encrypted(
      "AES, raw data file", mebibyte,
      ["encrypt.format": "aes", "data_file": "image.data", "data_file_raw": "on"]),
  ]

  private static func made(_ name: String, _ size: Int, _ options: [String: String], baseSize: Int? = nil)
    -> ConformanceRow
  {
    ConformanceRow(
      name: "our qcow2, \(name)", format: "qcow2", size: size,
      maker: .engine(options: options, baseSize: baseSize), isWritable: true)
  }

  private static func encrypted(
    _ name: String, _ size: Int, _ options: [String: String], baseSize: Int? = nil
  ) -> ConformanceRow {
    var all = options
    all["encrypt.key-secret"] = "key"
    var row = made(name, size, all, baseSize: baseSize)
    row.passphrase = "open sesame"
    return row
  }

  private static let judgeQcow2 = [
    qcow2("512 B clusters", 512, mebibyte / 2 + 1536),
    qcow2("4 KiB clusters", 4096, mebibyte + 512),
    qcow2("64 KiB clusters", 65536, 4 * mebibyte + 70 * 512),
    qcow2("2 MiB clusters", 2 * mebibyte, 9 * mebibyte),
    qcow2("version 2, 512 B clusters", 512, mebibyte / 2, ["compat=0.10"]),
    qcow2("version 2, 64 KiB clusters", 65536, 4 * mebibyte, ["compat=0.10"]),
    qcow2("1-bit refcounts", 4096, mebibyte, ["refcount_bits=1"]),
    qcow2("64-bit refcounts", 65536, 2 * mebibyte, ["refcount_bits=64"]),
    qcow2("lazy refcounts", 65536, 2 * mebibyte, ["lazy_refcounts=on"]),
    qcow2("preallocated metadata", 65536, 2 * mebibyte, ["preallocation=metadata"]),
    qcow2("subclusters, 16 KiB", 16384, 2 * mebibyte, ["extended_l2=on"]),
    qcow2("subclusters, 64 KiB", 65536, 4 * mebibyte + 512, ["extended_l2=on"]),
    qcow2("data file", 65536, 2 * mebibyte, ["data_file=image.data"]),
    qcow2("raw data file", 65536, 2 * mebibyte, ["data_file=image.data", "data_file_raw=on"]),
    qcow2("data file, subclusters", 65536, 2 * mebibyte, ["data_file=image.data", "extended_l2=on"]),
    qcow2("deflate, 512 B clusters", 512, mebibyte / 4) { $0.writesCompressed = true },
    qcow2("deflate, 64 KiB clusters", 65536, 4 * mebibyte + 512) { $0.writesCompressed = true },
    qcow2("zstd, 64 KiB clusters", 65536, 4 * mebibyte, ["compression_type=zstd"]) {
      $0.writesCompressed = true
    },
    qcow2("deflate, subclusters", 65536, 4 * mebibyte, ["extended_l2=on"]) { $0.writesCompressed = true },
    qcow2("backing, short raw", 65536, 2 * mebibyte) { $0.hasShortRawBase = true },
    qcow2("backing, version 2", 4096, mebibyte, ["compat=0.10"]) { $0.hasShortRawBase = true },
    qcow2("backing, subclusters", 65536, 2 * mebibyte, ["extended_l2=on"]) { $0.hasShortRawBase = true },
    qcow2("backing, four deep", 65536, 2 * mebibyte) { $0.depth = 3 },
    qcow2("snapshots", 4096, mebibyte) { $0.snapshotCount = 3 },
  ]

  private static let engineVDI = [
    ConformanceRow(
      name: "our VDI, dynamic", format: "vdi", size: 3 * mebibyte + 512,
      maker: .engine(options: [:], baseSize: nil),
      isWritable: true),
    ConformanceRow(
      name: "our VDI, static", format: "vdi", size: 2 * mebibyte + 512,
      maker: .engine(options: ["static": "on"], baseSize: nil), isWritable: true),
  ]

  private static let judgeVDI = [
    vdi("dynamic", 4 * mebibyte + 70 * 512, []), vdi("static", 2 * mebibyte, ["static=on"]),
  ]

  private static func vdi(_ name: String, _ size: Int, _ options: [String]) -> ConformanceRow {
    var recipe = JudgeImage(size: size, options: options, cluster: mebibyte)
    recipe.format = "vdi"
    recipe.operationCount = 6
    return ConformanceRow(
      name: "VDI, \(name)", format: "vdi", size: size, maker: .judge(recipe), isWritable: true)
  }

  private static func qcow2(
    _ name: String, _ cluster: Int, _ size: Int, _ options: [String] = [],
    _ change: (inout JudgeImage) -> Void = { _ in }
  ) -> ConformanceRow {
    var recipe = JudgeImage(size: size, options: ["cluster_size=\(cluster)"] + options, cluster: cluster)
    change(&recipe)
    return ConformanceRow(
      name: "qcow2, \(name)", format: "qcow2", size: size, maker: .judge(recipe), isWritable: true)
  }

  private static let parallels =
    [(4096, mebibyte), (65536, 2 * mebibyte), (63 * 512, mebibyte + 512), (mebibyte, 3 * mebibyte)].flatMap {
      (cluster, size) in
      let option = "cluster_size=\(cluster)"
      return [
        ConformanceRow(
          name: "our parallels, \(cluster) B clusters", format: "parallels", size: size,
          maker: .engine(options: ["cluster_size": "\(cluster)"], baseSize: nil), isWritable: true),
        ConformanceRow(
          name: "parallels, \(cluster) B clusters", format: "parallels", size: size,
          maker: .judge(JudgeImage(format: "parallels", size: size, options: [option], cluster: cluster)),
          isWritable: true),
      ]
    }
  private static let vpc = [
    ConformanceRow(
      name: "our vpc, dynamic", format: "vpc", size: 5 * mebibyte + 512,
      maker: .engine(options: ["force_size": "on"], baseSize: nil), isWritable: true),
    ConformanceRow(
      name: "our vpc, fixed", format: "vpc", size: mebibyte + 512,
      maker: .engine(options: ["force_size": "on", "subformat": "fixed"], baseSize: nil), isWritable: true),
    ConformanceRow(
      name: "vpc, dynamic", format: "vpc", size: 5 * mebibyte,
      maker: .judge(
        JudgeImage(format: "vpc", size: 5 * mebibyte, options: ["force_size=on"], cluster: 2 * mebibyte)),
      isWritable: true),
    ConformanceRow(
      name: "vpc, fixed", format: "vpc", size: mebibyte,
      maker: .judge(
        JudgeImage(
          format: "vpc", size: mebibyte, options: ["force_size=on", "subformat=fixed"], cluster: 65536)),
      isWritable: true),
    ConformanceRow(
      name: "vpc, dynamic, 4 KiB blocks", format: "vpc", size: 200 * 1024 + 512,
      maker: .built { random in try VPCImage().build(byteCount: 200 * 1024 + 512, &random) }, isWritable: true
    ),
    ConformanceRow(
      name: "vpc, differencing, 8 KiB blocks", format: "vpc", size: 200 * 1024,
      maker: .built { random in
        try VPCImage(blockSize: 8192, isDifferencing: true).build(byteCount: 200 * 1024, &random)
      },
      isWritable: true, isJudged: false),
  ]

  private static let bochs = [
    built("bochs, 64 KiB extents", "bochs", mebibyte + 3 * 512) { random in
      try BochsImage().build(byteCount: mebibyte + 3 * 512, &random)
    },
    built("bochs, version 1, 1 MiB extents", "bochs", 3 * mebibyte) { random in
      try BochsImage(isVersion1: true, extentSize: mebibyte, bitmapSize: 256).build(
        byteCount: 3 * mebibyte, &random)
    },
  ]

  private static let cloop = [
    built("cloop, 64 KiB blocks", "cloop", mebibyte) { random in
      try CLoopImage(blockSize: 65536).build(blockCount: 16, &random)
    },
    built("cloop, blocks of 20.5 KiB", "cloop", 41 * 512 * 30) { random in
      try CLoopImage(blockSize: 41 * 512).build(blockCount: 30, &random)
    },
  ]

  private static let dmg = [
    dmg("zlib", DMGImage.Kind.zlib, isJudged: true) { try ZlibText.pack($0) },
    dmg("zlib, resource fork", DMGImage.Kind.zlib, .resourceFork, isJudged: true) { try ZlibText.pack($0) },
    dmg("bzip2", DMGImage.Kind.bzip2) { try PackedSamples.bzip2($0) },
    dmg("xz", DMGImage.Kind.lzma) { try PackedSamples.xz($0, preset: 0) },
    dmg("ADC", DMGImage.Kind.adc) { PackedSamples.adc($0) },
    dmg("LZFSE, plain blocks", DMGImage.Kind.lzfse) { PackedSamples.plainLZFSE($0) },
  ]

  private static func dmg(
    _ name: String, _ kind: UInt32, _ place: DMGImage.MapPlace = .propertyList, isJudged: Bool = false,
    _ pack: @escaping @Sendable ([UInt8]) throws -> [UInt8]
  ) -> ConformanceRow {
    var row = built("dmg, \(name)", "dmg", 0) { random in
      try DMGImage.random(packed: kind, mapPlace: place, isJudged: isJudged, &random, pack: pack)
    }
    row.fileName = "image.dmg"
    return row
  }

  private static func built(
    _ name: String, _ format: String, _ size: Int,
    _ build: @escaping @Sendable (inout SeededRandom) throws -> BuiltImage
  ) -> ConformanceRow {
    ConformanceRow(name: name, format: format, size: size, maker: .built(build), isWritable: false)
  }
}
