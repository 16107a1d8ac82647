import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

/// Parallels with clusters of several sizes.
extension ConformanceRow {
  static let parallels =
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
}
