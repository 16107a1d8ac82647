import TestSupport
import Testing

/// One point of the matrix cluster size x version x compression x subclusters x data file x depth x snapshot.
struct JudgeCase: Sendable, CustomTestStringConvertible {
  var name: String
  var recipe: JudgeImage
  var testDescription: String { name }

  /// Every cluster size in both versions, and the features at sizes that meet each other.
  static let all: [JudgeCase] = sizes + features

  private static let sizes = (9...21).flatMap { bits in
    ["0.10", "1.1"].map { compat in
      let cluster = 1 << bits
      // Enough for several L2 tables of small clusters, and several clusters of large ones.
      let size = max(cluster * 3 / 2, bits < 12 ? 300_032 : 1_200_128) / 512 * 512
      return JudgeCase(
        name: "cluster \(cluster), \(compat)",
        recipe: JudgeImage(
          size: size, options: ["cluster_size=\(cluster)", "compat=\(compat)"], cluster: cluster,
          operationCount: 12))
    }
  }

  private static let features: [JudgeCase] = {
    var cases: [JudgeCase] = []
    func add(
      _ name: String, _ cluster: Int, _ options: [String] = [],
      _ change: (inout JudgeImage) -> Void = { _ in }
    ) {
      var recipe = JudgeImage(
        size: 1_500_160, options: ["cluster_size=\(cluster)"] + options, cluster: cluster)
      change(&recipe)
      cases.append(JudgeCase(name: name, recipe: recipe))
    }
    for cluster in [16384, 65536, 2 << 20] {
      add("subclusters \(cluster)", cluster, ["extended_l2=on"])
      add("subclusters \(cluster) over raw", cluster, ["extended_l2=on"]) { $0.hasShortRawBase = true }
    }
    for cluster in [512, 4096, 65536] {
      for type in ["zlib", "zstd"] {
        add("\(type) \(cluster), snapshots", cluster, ["compression_type=\(type)"]) {
          $0.writesCompressed = true
          $0.snapshotCount = 1
        }
      }
    }
    add("data file 4096", 4096, ["data_file=image.data"])
    add("data file, preallocated", 65536, ["data_file=image.data", "preallocation=metadata"])
    add("raw data file 512", 512, ["data_file=image.data", "data_file_raw=on"])
    add("zstd, subclusters, snapshots", 65536, ["extended_l2=on", "compression_type=zstd"]) {
      $0.writesCompressed = true
      $0.snapshotCount = 2
    }
    add("five deep, snapshots", 65536) {
      $0.depth = 4
      $0.snapshotCount = 1
    }
    add("three deep over raw, version 2", 4096, ["compat=0.10"]) {
      $0.depth = 2
      $0.hasShortRawBase = true
    }
    for mode in ["metadata", "falloc", "full"] {
      add("preallocation \(mode)", 65536, ["preallocation=\(mode)"])
    }
    return cases
  }()
}
