import FormatEngine

private let mebibyte = 1 << 20

// QED, and the first version of QCOW.
extension ConformanceRow {
  static let engineQED = [
    made("qed", "4 KiB clusters", mebibyte + 512, ["cluster_size": "4k", "table_size": "2"]),
    made("qed", "64 KiB clusters", 4 * mebibyte + 512, [:]),
    made("qed", "backing", mebibyte, ["cluster_size": "16k"], baseSize: mebibyte / 2 + 512),
  ]

  static let judgeQED = [
    judged("qed", "4 KiB clusters", 4096, mebibyte, ["cluster_size=4k", "table_size=2"]),
    judged("qed", "64 KiB clusters", 65536, 2 * mebibyte + 512),
    judged("qed", "backing, short raw", 16384, mebibyte, ["cluster_size=16k", "table_size=2"]) {
      $0.hasShortRawBase = true
    },
  ]

  static let engineQcow = [
    made("qcow", "4 KiB clusters", mebibyte + 512, [:]),
    made("qcow", "backing", mebibyte / 2, [:], baseSize: mebibyte / 4 + 512),
    encryptedQcow("AES", mebibyte / 2, [:]),
    encryptedQcow("AES, backing", mebibyte / 4, [:], baseSize: mebibyte / 8 + 512),
  ]

  static let judgeQcow = [
    judged("qcow", "4 KiB clusters", 4096, mebibyte),
    judged("qcow", "deflate", 4096, mebibyte) { $0.writesCompressed = true },
    judged("qcow", "backing, short raw", 512, mebibyte / 2) { $0.hasShortRawBase = true },
  ]

  private static func made(
    _ format: String, _ name: String, _ size: Int, _ options: [String: String], baseSize: Int? = nil
  ) -> ConformanceRow {
    ConformanceRow(
      name: "our \(format), \(name)", format: format, size: size,
      maker: .engine(options: options, baseSize: baseSize), isWritable: true)
  }

  private static func encryptedQcow(
    _ name: String, _ size: Int, _ options: [String: String], baseSize: Int? = nil
  ) -> ConformanceRow {
    let all = options.merging(["encrypt.format": "aes", "encrypt.key-secret": "key"]) { $1 }
    var row = made("qcow", name, size, all, baseSize: baseSize)
    row.passphrase = "open sesame"
    return row
  }

  private static func judged(
    _ format: String, _ name: String, _ cluster: Int, _ size: Int, _ options: [String] = [],
    _ change: (inout JudgeImage) -> Void = { _ in }
  ) -> ConformanceRow {
    var recipe = JudgeImage(format: format, size: size, options: options, cluster: cluster)
    change(&recipe)
    return ConformanceRow(
      name: "\(format), \(name)", format: format, size: size, maker: .judge(recipe), isWritable: true)
  }
}
