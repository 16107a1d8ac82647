/// What changes an image of qcow2 as a whole: snapshots, bitmaps, features; and what mends one.
extension OperationRow {
  private static let image = Image(file: "image", format: "qcow2", promise: .oldOrNew)

  /// Kinds in which tables and counts have other shapes.
  private static let shapes: [(name: String, options: String)] = [
    ("", "cluster_size=64k"), (" of version 2", "compat=0.10,cluster_size=4k"),
    (" of 512", "cluster_size=512,refcount_bits=64"),
    (" with subclusters", "extended_l2=on,cluster_size=16k"),
    (" with lazy counts", "lazy_refcounts=on,cluster_size=4k"),
  ]

  /// Two snapshots, with other bytes in between.
  private static func withSnapshots(_ options: String) -> String {
    """
    $J convert -f raw -O qcow2 -o \(options) other.raw image
    $J snapshot -c one image
    $J convert -n -f raw -O qcow2 disk.raw image
    $J snapshot -c two image
    $IO -f qcow2 -c 'write -q -P 9 100k 200k' -c 'discard -q 500k 128k' image

    """
  }

  static let snapshots = shapes.flatMap { shape in
    [("-c", "three"), ("-a", "one"), ("-d", "one"), ("-d", "two")].map { action, name in
      OperationRow(
        name: "snapshot \(action) \(name), qcow2\(shape.name)", preparation: withSnapshots(shape.options),
        command: ["snapshot", action, name, "image"], images: [image])
    }
  }

  private static func withBitmaps(_ options: String) -> String {
    """
    $J convert -f raw -O qcow2 -o \(options) other.raw image
    $J bitmap --add -g 64k image b; $J bitmap --add -g 32k image c
    $IO -f qcow2 -c 'write -q -P 9 100k 200k' image
    $J bitmap --add -g 32k image d
    $IO -f qcow2 -c 'write -q -P 8 800k 100k' image

    """
  }

  static let bitmaps = ["cluster_size=64k", "cluster_size=512"].flatMap { options in
    [
      ["--add", "-g", "64k", "image", "new"], ["--add", "--disable", "image", "new"],
      ["--remove", "image", "b"], ["--clear", "image", "b"],
      ["--merge", "d", "image", "c"], ["--disable", "image", "b"],
    ].map { action in
      OperationRow(
        name: "bitmap \(action.filter { $0.hasPrefix("-") }.joined(separator: " ")), \(options)",
        preparation: withBitmaps(options), command: ["bitmap"] + action, images: [image])
    }
  }

  static let bitmapCopy = OperationRow(
    name: "convert --bitmaps", preparation: withBitmaps("cluster_size=64k"),
    command: ["convert", "-t", "writeback", "--bitmaps", "-O", "qcow2", "image", "copy"],
    images: [
      Image(file: "image", format: "qcow2", promise: .kept),
      Image(file: "copy", format: "qcow2", promise: .new),
    ])

  static let bitmapResizes = [
    OperationRow(
      name: "resize up, bitmaps", preparation: withBitmaps("cluster_size=4k"),
      command: ["resize", "-q", "image", "3M"], images: [image]),
    OperationRow(
      name: "resize --shrink, bitmaps", preparation: withBitmaps("cluster_size=4k"),
      command: ["resize", "-q", "--shrink", "image", "512k"], images: [image]),
  ]

  static let amendments =
    [
      ("cluster_size=64k", "compat=0.10"), ("compat=0.10,cluster_size=4k", "compat=1.1"),
      ("cluster_size=4k", "refcount_bits=64"), ("cluster_size=512", "refcount_bits=2"),
      ("extended_l2=on,cluster_size=16k", "refcount_bits=32"), ("cluster_size=4k", "lazy_refcounts=on"),
      ("cluster_size=4k,lazy_refcounts=on", "lazy_refcounts=off"),
    ].map { options, change in
      OperationRow(
        name: "amend \(change), \(options)", preparation: withSnapshots(options),
        command: ["amend", "-q", "-o", change, "image"], images: [image])
    } + [
      OperationRow(
        name: "amend data_file",
        preparation: "$J convert -f raw -O qcow2 -o data_file=d1 disk.raw image; cp d1 d2\n",
        command: ["amend", "-q", "-o", "data_file=d2", "image"], images: [image]),
      OperationRow(
        name: "amend data_file_raw",
        preparation: "$J convert -f raw -O qcow2 -o data_file=d1,data_file_raw=on disk.raw image\n",
        command: ["amend", "-q", "-o", "data_file_raw=off", "image"], images: [image]),
    ]

  /// Passphrases come and go: the disk opens with the first one in any case.
  static let keys = [("luks", ""), ("qcow2", "encrypt.")].flatMap { format, prefix in
    let kind = WritableKind.all.first { $0.format == format && $0.passphrase != nil }
    guard let kind else { preconditionFailure("there is one of each") }
    let another = ["--object", "secret,id=more,data=mehr"]
    let adding = "\(prefix)state=active,\(prefix)new-secret=more,\(prefix)keyslot=2,\(prefix)iter-time=10"
    let removing = "\(prefix)state=inactive,\(prefix)keyslot=2"
    let line = (["$Q", "amend"] + another + kind.named + ["-o", adding]).joined(separator: " ")
    return [
      OperationRow(
        name: "amend, a passphrase more, \(kind.name)", preparation: kind.making(from: "disk.raw"),
        command: ["amend", "-q"] + another + kind.named + ["-o", adding], images: [kind.image(.kept)],
        words: "Refusing to overwrite active keyslot"),
      OperationRow(
        name: "amend, a passphrase less, \(kind.name)",
        preparation: kind.making(from: "disk.raw") + line + "\n",
        command: ["amend", "-q"] + kind.named + ["-o", removing], images: [kind.image(.kept)],
        words: "is already erased"),
    ]
  }

  /// Counts that are too high, too low, or both: of clusters in the middle, whose count has its place in the first block.
  static let repairs = [
    ("leaks, qcow2", "leaks", "\\377\\377", 40), ("all, qcow2", "all", "\\0\\0", 8),
  ].map { name, mode, bytes, index in
    OperationRow(
      name: "check -r \(name)",
      preparation: withSnapshots("cluster_size=64k")
        + "printf '\(bytes)' | dd of=image bs=1 seek=$((131072 + 2 * \(index))) conv=notrunc status=none\n",
      command: ["check", "-q", "-r", mode, "image"],
      images: [Image(file: "image", format: "qcow2", promise: .kept)], isDamaged: true)
  }
}
