import FormatEngine
import TestSupport
import Testing

/// Source and target on one file system whose files can share blocks. It needs root and loop devices.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct SharedBlocksTests {
  enum Host: String, CaseIterable, Sendable {
    case xfs, btrfs

    var maker: [String] {
      switch self {
      case .xfs: ["/sbin/mkfs.xfs", "-q", "-m", "reflink=1"]
      case .btrfs: ["/sbin/mkfs.btrfs", "-q"]
      }
    }
  }

  /// 24 MiB with runs of zeros of many lengths and places, and a piece at the end that is no whole block.
  private static let disk: [UInt8] = {
    var random = SeededRandom(seed: 31)
    var bytes = random.bytes(24 << 20 + 1536)
    for start in stride(from: 100_000, to: bytes.count - 1_000_000, by: 1_000_000) {
      for index in start..<start + random.below(400_000) { bytes[index] = 0 }
    }
    return bytes
  }()

  /// A file system of that kind with `disk` as raw, qcow2, VMDK and as the layer above another one.
  private func with(_ host: Host, _ body: (TemporaryFolder, _ place: String) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      let device = try folder.write([], to: "device")
      try TestProcess.run(["/usr/bin/truncate", "-s", "512M", device]).expecting(0)
      try TestProcess.run(host.maker + [device]).expecting(0)
      try LoopMount.with(device, "rw", in: folder) { place in
        try Files.write(Self.disk, to: place + "/disk.raw")
        for (name, format) in [("disk.qcow2", "qcow2"), ("disk.vmdk", "vmdk")] {
          try ReferenceTool.qemuImg("convert", "-f", "raw", "-O", format, "disk.raw", name, folder: place)
        }
        try ReferenceTool.create(
          "top.qcow2", format: "qcow2", size: Self.disk.count, over: ("disk.qcow2", "qcow2"), folder: place)
        try ReferenceTool.io(["write -q -P 7 5M 3M"], on: "top.qcow2", format: "qcow2", folder: place)
        // Clusters that can be shared and those that cannot, side by side.
        try ReferenceTool.create("mixed.qcow2", format: "qcow2", size: 16 << 20, folder: place)
        try ReferenceTool.io(
          (0..<256).map { "write -q \($0 % 3 == 1 ? "-c" : "") -P \($0 % 250 + 1) \($0 * 64)k 64k" },
          on: "mixed.qcow2", format: "qcow2", folder: place)
        try body(folder, place)
      }
    }
  }

  /// Bytes of the file system that are in use, once all is on disk.
  private func usedByteCount(_ place: String) throws -> Int {
    try TestProcess.run(["/usr/bin/sync", "--file-system", place]).expecting(0)
    let text = try TestProcess.run(["/usr/bin/df", "--output=used", "-B1", place]).expecting(0).stdoutText
    return try #require(
      text.split(separator: "\n").last.flatMap { Int($0.trimmingPrefix(while: { $0 == " " })) })
  }

  struct Case: Sendable, CustomTestStringConvertible {
    var source: (name: String, format: String)
    var target: String
    var options: [String] = []
    var isShared = true
    var testDescription: String { "\(source.name) to \(target) \(options.joined(separator: " "))" }
  }

  static let cases = [
    Case(source: ("disk.raw", "raw"), target: "raw"),
    Case(source: ("disk.raw", "raw"), target: "qcow2"),
    Case(source: ("disk.qcow2", "qcow2"), target: "raw"),
    Case(source: ("disk.qcow2", "qcow2"), target: "qcow2", options: ["-W"]),
    Case(source: ("disk.qcow2", "qcow2"), target: "raw", options: ["-S", "256k"]),
    Case(source: ("disk.qcow2", "qcow2"), target: "qcow2", options: ["-C"]),
    Case(source: ("top.qcow2", "qcow2"), target: "qcow2"),
    Case(source: ("disk.vmdk", "vmdk"), target: "vhdx"),
    Case(source: ("mixed.qcow2", "qcow2"), target: "raw"),
    Case(source: ("mixed.qcow2", "qcow2"), target: "qcow2", options: ["-m", "1"]),
    Case(source: ("disk.raw", "raw"), target: "qcow2", options: ["-o", "extended_l2=on"]),
    Case(source: ("disk.raw", "raw"), target: "qcow2", options: ["-o", "data_file=data"]),
    // What has to be its own.
    Case(source: ("disk.qcow2", "qcow2"), target: "raw", options: ["-S", "0"], isShared: false),
    Case(source: ("disk.raw", "raw"), target: "raw", options: ["-o", "preallocation=full"], isShared: false),
    Case(
      source: ("disk.raw", "raw"), target: "qcow2", options: ["-o", "preallocation=falloc"], isShared: false),
    Case(source: ("disk.raw", "raw"), target: "raw", options: ["-t", "none"], isShared: false),
  ]

  @Test(arguments: Host.allCases) func targetSharesBlocksOfItsSource(_ host: Host) throws {
    try with(host) { _, place in
      // Nothing is removed in between: a file system gives room back when it likes.
      for (number, test) in Self.cases.enumerated() {
        let output = "output\(number).\(test.target)"
        let before = try usedByteCount(place)
        try BuiltProduct.qemuImg.run(
          ["convert", "-f", test.source.format, "-O", test.target] + test.options + [
            test.source.name, output,
          ],
          folder: place
        ).expecting()
        let used = try usedByteCount(place) - before
        #expect(test.isShared ? used < 6 << 20 : used > 15 << 20, "\(test): \(used) bytes more")
        try ReferenceTool.qemuImg(
          "compare", "-f", test.source.format, "-F", test.target, test.source.name, output, folder: place)
        #expect(try ReferenceTool.check(output, format: test.target, folder: place).isClean, "\(test)")
      }
    }
  }

  /// Zeros are left out in the same places, whether blocks are shared or copied.
  @Test(arguments: Host.allCases) func zerosStayHoles(_ host: Host) throws {
    try with(host) { folder, place in
      for (options, target) in [([], "raw"), (["-S", "64k"], "raw"), ([], "qcow2")] as [([String], String)] {
        let command = ["convert", "-f", "qcow2", "-O", target] + options + ["disk.qcow2"]
        try BuiltProduct.qemuImg.run(command + ["ours"], folder: place).expecting()
        try ReferenceTool.qemuImg.run(command + ["theirs"], folder: place).expecting()
        let ours = try ReferenceTool.map("ours", format: target, folder: place).filter(\.isData)
        let theirs = try ReferenceTool.map("theirs", format: target, folder: place).filter(\.isData)
        let (our, their) = (ours.reduce(0) { $0 + $1.length }, theirs.reduce(0) { $0 + $1.length })
        // Blocks that are shared bring the source's own holes along, also shorter ones than the option says.
        #expect(options.isEmpty ? our == their : our <= their, "\(options) \(target)")
      }
    }
  }

  /// Neither of two images that share blocks sees what is written to the other one.
  @Test(arguments: Host.allCases) func writesStayApart(_ host: Host) throws {
    try with(host) { _, place in
      try BuiltProduct.qemuImg.run(
        ["convert", "-f", "raw", "-O", "raw", "disk.raw", "output.raw"], folder: place
      ).expecting()
      try ReferenceTool.io(["write -q -P 9 1M 1M"], on: "disk.raw", format: "raw", folder: place)
      try ReferenceTool.io(["write -q -P 8 3M 1M"], on: "output.raw", format: "raw", folder: place)
      let (source, target) = (try Files.read("\(place)/disk.raw"), try Files.read("\(place)/output.raw"))
      #expect(Array(target[1 << 20..<2 << 20]) == Array(Self.disk[1 << 20..<2 << 20]))
      #expect(Array(source[3 << 20..<4 << 20]) == Array(Self.disk[3 << 20..<4 << 20]))
    }
  }

  /// Of a file that ends within its last cluster, which is the guest's first, all others are shared.
  @Test(arguments: [60_000, 63_000]) func fileThatEndsEarlyIsShared(_ cutByteCount: Int) throws {
    try with(.xfs) { _, place in
      try ReferenceTool.create("cut.qcow2", format: "qcow2", size: 16 << 20, folder: place)
      try ReferenceTool.io(
        ["write -q -P 3 64k 15M", "write -q -P 4 0 5000"], on: "cut.qcow2", format: "qcow2", folder: place)
      let byteCount = try Files.read("\(place)/cut.qcow2").count
      try TestProcess.run(["/usr/bin/truncate", "-s", "\(byteCount - cutByteCount)", "\(place)/cut.qcow2"])
        .expecting(0)
      let result = try BuiltProduct.qemuImg.run(
        ["-T", "store_copy", "convert", "-m", "1", "-O", "raw", "cut.qcow2", "out.raw"], folder: place
      ).expecting()
      #expect(result.stderrText.split(separator: "\n").count >= 5, "\(result.stderrText)")
      try ReferenceTool.qemuImg("compare", "cut.qcow2", "out.raw", folder: place)
    }
  }

  /// What is too small to have room of its own by half is not shared, either.
  @Test func smallPreallocatedDiskStaysItsOwn() throws {
    try with(.xfs) { _, place in
      try TestProcess.run(["/usr/bin/truncate", "-s", "512K", "\(place)/disk.raw"]).expecting(0)
      let result = try BuiltProduct.qemuImg.run(
        [
          "-T", "store_copy", "convert", "-f", "raw", "-O", "raw", "-o", "preallocation=full", "disk.raw",
          "o",
        ],
        folder: place
      ).expecting()
      #expect(result.stderrText == "")
    }
  }

  /// To another file system everything is copied.
  @Test func otherFileSystemGetsCopies() throws {
    try with(.xfs) { folder, place in
      let target = folder.file("target.raw")
      try BuiltProduct.qemuImg.run(
        ["convert", "-f", "qcow2", "-O", "raw", "disk.qcow2", target], folder: place
      ).expecting()
      #expect(ModelDisk.firstDifference(try Files.read(target), Self.disk) == nil)
    }
  }
}
