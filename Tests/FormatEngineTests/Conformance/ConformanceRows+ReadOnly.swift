import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

/// Formats that are only read: their images are put together by the tests.
extension ConformanceRow {
  static let bochs = [
    built("bochs, 64 KiB extents", "bochs", mebibyte + 3 * 512) { random in
      try BochsImage().build(byteCount: mebibyte + 3 * 512, &random)
    },
    built("bochs, 8 KiB extents", "bochs", 300 * 512) { random in
      try BochsImage(extentSize: 8192).build(byteCount: 300 * 512, &random)
    },
    built("bochs, version 1, 1 MiB extents", "bochs", 3 * mebibyte) { random in
      try BochsImage(isVersion1: true, extentSize: mebibyte, bitmapSize: 256).build(
        byteCount: 3 * mebibyte, &random)
    },
  ]

  static let cloop = [
    built("cloop, 64 KiB blocks", "cloop", mebibyte) { random in
      try CLoopImage(blockSize: 65536).build(blockCount: 16, &random)
    },
    built("cloop, blocks of 20.5 KiB", "cloop", 41 * 512 * 30) { random in
      try CLoopImage(blockSize: 41 * 512).build(blockCount: 30, &random)
    },
  ]

  static let dmg = [
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
