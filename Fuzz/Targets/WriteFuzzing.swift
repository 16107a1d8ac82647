import FormatEngine
import TestSupport

/// A new image, and a sequence of what can be done to it: after each step it reads like a plain array of bytes to which the same was done,
/// and at the end its check finds nothing.
///
/// The first byte chooses the kind of image; the steps follow, each with a byte for what is done and some for where.
enum WriteFuzzing {
  private static let maximumStepCount = 32

  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let kind = WrittenKind.all[input.below(WrittenKind.all.count)]
    do {
      var disk = try WrittenDisk(kind, sectorCount: 1 + input.below(kind.maximumSectorCount))
      for _ in 0..<maximumStepCount where !input.isAtEnd { try disk.step(&input) }
      try disk.finish()
    } catch let error as EngineError {
      // The image is our own: only a full store may keep anybody from using it.
      guard error.code == .system(errno: SparseStore.noRoom) else {
        throw FuzzFinding("\(kind.format) \(kind.options): \(error.message)")
      }
    }
  }
}

/// An image that is made to be written to.
struct WrittenKind: Sendable {
  var format: String
  var options: [String: String] = [:]
  /// Whether a layer with other bytes lies below.
  var isOverlay = false
  /// Of the disk, in sectors of 512 bytes.
  var maximumSectorCount = 600

  static let all: [WrittenKind] = [
    WrittenKind(format: "qcow2"),
    WrittenKind(format: "qcow2", options: ["cluster_size": "512"]),
    WrittenKind(format: "qcow2", options: ["cluster_size": "4k"], isOverlay: true),
    WrittenKind(format: "qcow2", options: ["cluster_size": "16k", "extended_l2": "on"], isOverlay: true),
    WrittenKind(format: "qcow2", options: ["cluster_size": "512", "compat": "0.10"], isOverlay: true),
    WrittenKind(
      format: "qcow2", options: ["cluster_size": "1k", "refcount_bits": "2", "lazy_refcounts": "on"]),
    WrittenKind(format: "qcow2", options: ["cluster_size": "4k", "compression_type": "zstd"]),
    WrittenKind(format: "qcow", isOverlay: true),
    WrittenKind(format: "qed", options: ["cluster_size": "4k"], isOverlay: true),
    WrittenKind(format: "vdi", maximumSectorCount: 5000),
    WrittenKind(format: "vmdk"),
    WrittenKind(format: "vpc", options: ["force_size": "on"], maximumSectorCount: 9000),
    WrittenKind(format: "vpc", options: ["subformat": "fixed", "force_size": "on"]),
    WrittenKind(format: "vhdx", options: ["block_size": "1M"], maximumSectorCount: 5000),
    WrittenKind(format: "vhdx", options: ["subformat": "fixed", "block_size": "1M"]),
    WrittenKind(format: "parallels", maximumSectorCount: 5000),
    WrittenKind(format: "raw"),
  ]
}
