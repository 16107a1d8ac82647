/// What works on more than one file, and repairs of other formats.
extension OperationRow {
  /// Formats that can have a backing file, and what makes one over `first` with bytes of its own.
  private static let tops: [(format: String, options: String)] = [
    ("qcow2", "-o cluster_size=4k"), ("qcow2", "-o extended_l2=on,cluster_size=16k"), ("qcow2", ""),
    ("qed", "-o cluster_size=4k,table_size=2"), ("qcow", ""), ("vmdk", ""), ("vdi", ""), ("vpc", ""),
    ("vhdx", "-o block_size=1M"),
  ]

  /// Of raw bytes: the format's own image, called `name`.
  private static func base(_ name: String, _ format: String, from raw: String, _ options: String = "")
    -> String
  {
    format == "raw" ? "cp \(raw) \(name)\n" : "$J convert -f raw -O \(format) \(options) \(raw) \(name)\n"
  }

  private static func top(_ format: String, _ options: String, over base: String, _ baseFormat: String)
    -> String
  {
    let creation = "$Q create -q -f \(format) \(options) -b \(base) -F \(baseFormat) image\n"
    // The judge does not know of a VDI, VPC or VHDX over another one.
    guard !["vdi", "vpc", "vhdx"].contains(format) else {
      return creation + "$Q bench -q -w --pattern=9 -c 5 -s 20k -S 150k -o 100k -f \(format) image\n"
    }
    return creation
      + "$IO -f \(format) -c 'write -q -P 9 100k 200k' -c 'write -q -P 8 900k 30k' -c 'write -q -z 600k 64k' image\n"
  }

  static let commits =
    tops.map { format, options in
      let baseFormat = ["qcow2", "qed", "qcow"].contains(format) ? "qcow2" : format
      // Its parent is looked for by its identity.
      let name = format == "vdi" ? "first.vdi" : "first"
      return OperationRow(
        name: "commit, \(format) \(options)",
        preparation: base(name, baseFormat, from: "other.raw") + top(format, options, over: name, baseFormat),
        command: ["commit", "-q", "-f", format, "image"],
        images: [
          Image(file: "image", format: format, promise: .kept),
          Image(file: name, format: baseFormat, promise: .between),
        ], isForJudge: !["vdi", "vpc", "vhdx"].contains(format))
    }
    + ["raw", "qcow2", "qed", "vdi", "vpc", "vhdx", "parallels", "qcow"].map { format in
      OperationRow(
        name: "commit -d into \(format)",
        preparation: base("first", format, from: "other.raw", format == "vpc" ? "-o force_size=on" : "")
          + top("qcow2", "", over: "first", format),
        command: ["commit", "-q", "-d", "image"],
        images: [
          Image(file: "image", format: "qcow2", promise: .kept),
          Image(file: "first", format: format, promise: .between),
        ])
    } + [
      OperationRow(
        name: "commit -b, over a middle",
        preparation: base("first", "qcow2", from: "other.raw")
          + """
          $J create -q -f qcow2 -o cluster_size=4k -b first -F qcow2 middle
          $IO -f qcow2 -c 'write -q -P 7 50k 100k' middle

          """ + top("qcow2", "", over: "middle", "qcow2"),
        command: ["commit", "-q", "-b", "first", "image"],
        images: [
          Image(file: "image", format: "qcow2", promise: .kept),
          Image(file: "first", format: "qcow2", promise: .between),
        ]),
      OperationRow(
        name: "commit, into a smaller base",
        preparation: """
          head -c 512k other.raw > small
          $J convert -f raw -O qcow2 -o cluster_size=4k small first
          $J create -q -f qcow2 -b first -F qcow2 image 1M
          $IO -f qcow2 -c 'write -q -P 9 100k 200k' -c 'write -q -P 8 900k 30k' image

          """,
        command: ["commit", "-q", "image"],
        images: [
          Image(file: "image", format: "qcow2", promise: .kept),
          Image(file: "first", format: "qcow2", promise: .between),
        ]),
      commitOfAnEncryptedImage,
      OperationRow(
        name: "commit, qcow2 with bitmaps",
        preparation: base("first", "qcow2", from: "other.raw")
          + """
          $Q create -q -f qcow2 -o cluster_size=4k -b first -F qcow2 image
          $J bitmap --add -g 4k image on; $J bitmap --add -g 64k --disable image off
          $IO -f qcow2 -c 'write -q -P 9 100k 200k' -c 'write -q -P 8 900k 30k' -c 'write -q -z 600k 64k' image

          """,
        command: ["commit", "-q", "image"],
        images: [
          // Its disk reads as before, and its bitmaps say what they said.
          Image(file: "image", format: "qcow2", promise: .oldOrNew),
          Image(file: "first", format: "qcow2", promise: .between),
        ]),
    ]

  /// The image that is emptied has a key, by which it opens before and afterwards.
  private static var commitOfAnEncryptedImage: OperationRow {
    let layers = "driver=qcow2,encrypt.key-secret=key,file.filename=image"
    return OperationRow(
      name: "commit, qcow2 LUKS",
      preparation: base("first", "qcow2", from: "other.raw")
        + """
        $Q create -q $K -f qcow2 -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10,cluster_size=4k \
          -b first -F qcow2 image
        $IO $K --image-opts -c 'write -q -P 9 100k 200k' -c 'write -q -P 8 900k 30k' -c 'write -q -z 600k 64k' \
          \(layers)

        """,
      command: ["commit", "-q"] + key + ["--image-opts", layers],
      images: [
        Image(file: "image", format: "qcow2", promise: .kept, passphrase: passphrase),
        Image(file: "first", format: "qcow2", promise: .between),
      ])
  }

  /// Other formats cannot be given another name of what lies below.
  static let rebases = tops.filter { ["qcow2", "qed"].contains($0.format) }.flatMap { format, options in
    let (raw, last) = ("raw", "qcow2")
    let start =
      base("first", raw, from: "other.raw") + base("second", last, from: "disk.raw")
      + top(format, options, over: "first", raw)
    let image = Image(file: "image", format: format, promise: .kept)
    return [
      OperationRow(
        name: "rebase onto nothing, \(format) \(options)", preparation: start,
        command: ["rebase", "-t", "writeback", "-b", "", "image"], images: [image]),
      OperationRow(
        name: "rebase, \(format) \(options)", preparation: start,
        command: ["rebase", "-t", "writeback", "-b", "second", "-F", last, "image"], images: [image]),
      OperationRow(
        name: "rebase -u, \(format) \(options)", preparation: start,
        command: ["rebase", "-t", "writeback", "-u", "-b", "second", "-F", last, "image"],
        images: [Image(file: "image", format: format, promise: .oldOrNew)]),
    ]
  }

  /// Marks of use, room that nothing refers to, counts that are too high.
  static let otherRepairs = [
    (
      "qed", "-o cluster_size=4k,table_size=2",
      "printf '\\002' | dd of=image bs=1 seek=16 conv=notrunc status=none"
    ),
    (
      "parallels", "-o cluster_size=64k",
      "printf 'YnotX' | dd of=image bs=1 seek=44 count=4 conv=notrunc status=none"
    ),
    ("parallels", "-o cluster_size=64k", "truncate -s +192k image"),
    ("vdi", "", "printf '\\004' | dd of=image bs=1 seek=388 conv=notrunc status=none"),
    ("qed", "-o cluster_size=4k,table_size=2", "truncate -s +64k image"),
  ].map { format, options, damage in
    OperationRow(
      name: "check -r all, \(format): \(damage.prefix(20))",
      preparation: "$J convert -f raw -O \(format) \(options) disk.raw image\n\(damage)\n",
      command: ["check", "-q", "-r", "all", "image"],
      images: [Image(file: "image", format: format, promise: .kept)], isDamaged: true)
  }

  static let all: [OperationRow] =
    creations + conversions + [carelessConversion] + refills + dumps + resizes + preallocatingResizes
    + snapshots
    + bitmaps + [bitmapCopy] + bitmapResizes + amendments + keys + repairs + commits + rebases + otherRepairs
}
