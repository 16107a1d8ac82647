import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

extension ConformanceRow {
  /// Images that our engine makes. The judge has no parents for VHDX.
  static let vhdx: [ConformanceRow] = [
    made("dynamic", 3 * mebibyte + 512, ["block_state_zero": "off"]),
    made("fixed", mebibyte + 512, ["subformat": "fixed"]),
    made("differencing", 3 * mebibyte, [:], baseSize: 2 * mebibyte + 512),
  ]

  static let judgeVHDX: [ConformanceRow] = [
    judged("dynamic", 3 * mebibyte + 70 * 512, []), judged("fixed", mebibyte + 512, ["subformat=fixed"]),
  ]

  private static func made(_ name: String, _ size: Int, _ options: [String: String], baseSize: Int? = nil)
    -> ConformanceRow
  {
    let all = options.merging(["block_size": "1M"]) { $1 }
    var row = ConformanceRow(
      name: "our VHDX, \(name)", format: "vhdx", size: size,
      maker: .engine(options: all, baseSize: baseSize), isWritable: true)
    row.isJudged = baseSize == nil
    return row
  }

  private static func judged(_ name: String, _ size: Int, _ options: [String]) -> ConformanceRow {
    var recipe = JudgeImage(size: size, options: ["block_size=1M"] + options, cluster: mebibyte)
    recipe.format = "vhdx"
    recipe.operationCount = 6
    return ConformanceRow(
      name: "VHDX, \(name)", format: "vhdx", size: size, maker: .judge(recipe), isWritable: true)
  }
}
