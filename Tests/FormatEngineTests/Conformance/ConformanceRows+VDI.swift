import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

/// VDI of each kind.
extension ConformanceRow {
  static let engineVDI = [
    ConformanceRow(
      name: "our VDI, dynamic", format: "vdi", size: 3 * mebibyte + 512,
      maker: .engine(options: [:], baseSize: nil),
      isWritable: true),
    ConformanceRow(
      name: "our VDI, static", format: "vdi", size: 2 * mebibyte + 512,
      maker: .engine(options: ["static": "on"], baseSize: nil), isWritable: true),
  ]

  static let judgeVDI = [
    vdi("dynamic", 4 * mebibyte + 70 * 512, []), vdi("static", 2 * mebibyte, ["static=on"]),
  ]

  private static func vdi(_ name: String, _ size: Int, _ options: [String]) -> ConformanceRow {
    var recipe = JudgeImage(size: size, options: options, cluster: mebibyte)
    recipe.format = "vdi"
    recipe.operationCount = 6
    return ConformanceRow(
      name: "VDI, \(name)", format: "vdi", size: size, maker: .judge(recipe), isWritable: true)
  }
}
