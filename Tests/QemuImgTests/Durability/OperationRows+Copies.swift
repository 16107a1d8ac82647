import TestSupport

/// What makes images, fills them, and gives them other sizes: for every kind that can be written.
extension OperationRow {
  private static let source = Image(file: "disk.raw", format: "raw", promise: .kept)

  static let creations = WritableKind.all.map { kind in
    OperationRow(
      name: "create, \(kind.name)", preparation: "",
      command: ["create", "-q", "-f", kind.format] + kind.given + kind.object + ["image", "1M"],
      images: [kind.image(kind.isBlank ? .new : .unknown)])
  }

  /// With the cache mode in which the end of the command means that all of it is on disk.
  static let conversions = WritableKind.all.flatMap { (kind) -> [OperationRow] in
    [false, true].compactMap { (packs) -> OperationRow? in
      if packs && !kind.packs { return nil }
      return OperationRow(
        name: "convert\(packs ? " -c" : ""), \(kind.name)", preparation: "",
        command: ["convert", "-t", "writeback"] + (packs ? ["-c"] : []) + ["-f", "raw", "-O", kind.format]
          + kind.given + kind.object + ["disk.raw", "image"],
        images: [source, kind.image(.new)])
    }
  }

  static let carelessConversion = OperationRow(
    name: "convert without flushes", preparation: "",
    command: ["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "image"],
    images: [source, Image(file: "image", format: "qcow2", promise: .new)], isDurable: false)

  static let refills = WritableKind.all.filter(\.canBeWrittenTwice).map { kind in
    let target =
      kind.passphrase == nil
      ? ["-O", kind.format, "disk.raw", "image"]
      : [
        "--target-image-opts", "disk.raw",
        "driver=\(kind.format),\(keySecretOption(ofFormat: kind.format))=key,file.filename=image",
      ]
    return OperationRow(
      name: "convert -n, \(kind.name)", preparation: kind.making(from: "other.raw"),
      command: ["convert", "-n", "-t", "writeback", "-f", "raw"] + kind.object + target,
      images: [source, kind.image(.between)])
  }

  /// `dd` takes no options, and so none of the kinds that need one.
  static let dumps = ["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels"].map {
    format in
    OperationRow(
      name: "dd, \(format)", preparation: "",
      command: ["dd", "-f", "raw", "-O", format, "bs=60k", "if=disk.raw", "of=image"],
      images: [source, Image(file: "image", format: format, promise: .new)])
  }

  static let resizes = WritableKind.all.flatMap { (kind) -> [OperationRow] in
    [true, false].compactMap { (grows) -> OperationRow? in
      guard grows ? kind.grows : kind.shrinks else { return nil }
      return OperationRow(
        name: "resize \(grows ? "up" : "--shrink"), \(kind.name)", preparation: kind.making(from: "disk.raw"),
        command: ["resize", "-q"] + (grows ? [] : ["--shrink"]) + kind.named
          + [grows ? "5M" : "256k"], images: [kind.image(.oldOrNew)])
    }
  }
  static let preallocatingResizes = ["metadata", "falloc", "full"].map { mode in
    OperationRow(
      name: "resize --preallocation=\(mode), qcow2",
      preparation: WritableKind.all[2].making(from: "disk.raw"),
      command: ["resize", "-q", "--preallocation=\(mode)", "-f", "qcow2", "image", "1536k"],
      images: [Image(file: "image", format: "qcow2", promise: .oldOrNew)])
  }
}
