import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

/// VHD of each kind.
extension ConformanceRow {
  static let vpc = [
    ConformanceRow(
      name: "our vpc, dynamic", format: "vpc", size: 5 * mebibyte + 512,
      maker: .engine(options: ["force_size": "on"], baseSize: nil), isWritable: true),
    ConformanceRow(
      name: "our vpc, fixed", format: "vpc", size: mebibyte + 512,
      maker: .engine(options: ["force_size": "on", "subformat": "fixed"], baseSize: nil), isWritable: true,
      isProbed: false),
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
      isWritable: true, isProbed: false),
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
}
