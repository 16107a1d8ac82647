import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

extension ConformanceRow {
  /// Every kind of image. A new format adds its rows here.
  static let all: [ConformanceRow] = [
    raw, engineQcow2, judgeQcow2,
    engineQcow, judgeQcow, engineQED, judgeQED,
    engineVMDK, judgeVMDK, serverVMDK,
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
    judgeVMDK, serverVMDK,
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
}

extension [ConformanceRow] {
  var firstOfEachFormat: [ConformanceRow] {
    var seen: Set<String> = []
    return filter { seen.insert($0.format).inserted }
  }
}
