import FormatEngine
import TestSupport

private let mebibyte = 1 << 20

/// qcow2: every version, cluster size and feature.
extension ConformanceRow {
  static let engineQcow2 = [
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

  static let judgeQcow2 = [
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

  private static func qcow2(
    _ name: String, _ cluster: Int, _ size: Int, _ options: [String] = [],
    _ change: (inout JudgeImage) -> Void = { _ in }
  ) -> ConformanceRow {
    var recipe = JudgeImage(size: size, options: ["cluster_size=\(cluster)"] + options, cluster: cluster)
    change(&recipe)
    return ConformanceRow(
      name: "qcow2, \(name)", format: "qcow2", size: size, maker: .judge(recipe), isWritable: true)
  }
}
