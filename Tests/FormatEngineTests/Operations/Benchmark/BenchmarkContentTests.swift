import TestSupport
import Testing

@testable import FormatEngine

/// What a benchmark that writes leaves behind: every byte where it belongs, in an image that the judge finds sound.
@Suite struct BenchmarkContentTests {
  static let images: [(format: String, options: [String])] = [
    ("raw", []), ("qcow2", []), ("qcow2", ["cluster_size=512"]), ("qcow2", ["extended_l2=on"]),
    ("qcow2", ["data_file=data"]), ("qcow2", ["preallocation=metadata"]), ("vdi", []), ("vmdk", []),
    ("vhdx", []),
    ("luks", []),
  ]

  /// Native AIO differs from io_uring only in how the kernel is asked: two images are enough.
  static let cases =
    images.indices.flatMap { [($0, TransferMethod.threads), ($0, .ring)] } + [(0, .native), (1, .native)]

  @Test(arguments: cases)
  func writesLeaveTheImageSound(image: Int, method: TransferMethod) throws {
    let (format, imageOptions) = Self.images[image]
    try TemporaryFolder.with { folder in
      let size = 1 << 20
      let passphrase = format == "luks" ? "open" : nil
      let kind = imageOptions.map { $0.hasPrefix("data_file") ? "data_file=\(folder.file("data"))" : $0 }
      try ReferenceTool.create(
        folder.file("image"), format: format, size: size,
        options: kind + (passphrase == nil ? [] : ["iter-time=10"]), passphrase: passphrase)
      if passphrase != nil {
        // What was never written reads as anything there.
        try ReferenceTool.io(
          ["write -q -P 0 0 \(size)"], on: folder.file("image"), format: format, passphrase: passphrase)
      }
      var opening = OpenOptions(format: format, access: .readWrite)
      if let passphrase {
        opening.secrets.add(Secret(text: passphrase), id: "key")
        opening.layerOptions["key-secret"] = "key"
      }
      var model = [UInt8](repeating: 0, count: size)
      for (round, step) in [9000, 4096, 70_000].enumerated() {
        let chain = try ImageOpener.open(folder.file("image"), opening)
        var options = BenchmarkOptions()
        options.kind = .write(pattern: UInt8(round + 1))
        options.transfer = method
        options.requestCount = 1 << 20 / step - 1
        options.depth = 8
        options.byteCount = round == 2 ? 66_000 : 3584
        options.step = UInt64(step)
        options.offset = 512 * UInt64(round)
        options.flushing = round == 0 ? nil : .init(interval: 20, drains: round == 1)
        _ = try Benchmark.run(on: chain, options)
        try chain.close()
        for index in 0..<options.requestCount {
          let start = Int(options.offset) + index * step
          for place in start..<start + options.byteCount { model[place] = UInt8(round + 1) }
        }
      }
      let content = try ReferenceTool.content(
        of: folder.file("image"), format: format, in: folder, passphrase: passphrase)
      #expect(ModelDisk.firstDifference(content, model) == nil)
      if ["qcow2", "vdi", "vmdk", "vhdx"].contains(format) {
        try ReferenceTool.qemuImg("check", "-q", "-f", format, folder.file("image"))
      }
    }
  }

  /// Requests that lie over each other, and more at a time than the disk has room for beside each other.
  @Test(arguments: [TransferMethod.threads, .ring, .native])
  func writesOverEachOtherEnd(method: TransferMethod) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(folder.file("image"), format: "qcow2", size: 1 << 20)
      let chain = try ImageOpener.open(folder.file("image"), OpenOptions(format: "qcow2", access: .readWrite))
      var options = BenchmarkOptions()
      options.kind = .write(pattern: 3)
      options.transfer = method
      options.requestCount = 3000
      options.depth = 32
      options.byteCount = 16384
      options.step = 512 << 10
      _ = try Benchmark.run(on: chain, options)
      try chain.close()
      let content = try ReferenceTool.content(of: folder.file("image"), format: "qcow2", in: folder)
      for start in [0, 512 << 10] { #expect(content[start..<start + 16384].holdsOnly(3)) }
      #expect(content.count { $0 != 0 } == 32768)
      try ReferenceTool.qemuImg("check", "-q", folder.file("image"))
    }
  }

  /// Reads of what only the chain gets at: packed, from below, past the end of a shorter image below.
  @Test(arguments: [TransferMethod.threads, .ring, .native])
  func everyKindOfExtentIsRead(method: TransferMethod) throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 300_000), to: "base")
      try ReferenceTool.create(
        "image", format: "qcow2", size: 1 << 20, over: ("base", "raw"), folder: folder.path)
      try ReferenceTool.io(
        ["write -q -c -P 7 131072 65536", "write -q -P 8 0 4096", "write -q -z 65536 65536"],
        on: folder.file("image"),
        format: "qcow2")
      let chain = try ImageOpener.open(folder.file("image"), OpenOptions(format: "qcow2"))
      var options = BenchmarkOptions()
      options.transfer = method
      options.requestCount = 1000
      options.depth = 16
      options.byteCount = 10_000
      options.step = 7168
      let memory = try BenchmarkWork(chain, options, slotCount: 1)
      // None of them leaves the disk.
      options.requestCount = (0..<1000).first { (try? memory.guestOffset($0)) == nil } ?? 1000
      #expect(options.requestCount > 100)
      #expect(try Benchmark.run(on: chain, options) > 0)
    }
  }

  /// Parts of one cluster are written by several threads at a time, some before it has room and some after.
  @Test func threadsWriteBesideEachOtherInOneCluster() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(folder.file("image"), format: "qcow2", size: 1 << 20)
      let chain = try ImageOpener.open(folder.file("image"), OpenOptions(format: "qcow2", access: .readWrite))
      let complaints = Threads.run(4) { number in
        for index in stride(from: number, to: 2048, by: 4) {
          do {
            try chain.writeBytes(
              [UInt8](repeating: UInt8(1 + index % 250), count: 512), at: UInt64(index) * 512)
          } catch { return "\(error)" }
        }
        return nil
      }
      #expect(complaints.isEmpty)
      try chain.close()
      let content = try ReferenceTool.content(of: folder.file("image"), format: "qcow2", in: folder)
      let model = (0..<2048).flatMap { [UInt8](repeating: UInt8(1 + $0 % 250), count: 512) }
      #expect(ModelDisk.firstDifference(content, model) == nil)
      try ReferenceTool.qemuImg("check", "-q", folder.file("image"))
    }
  }

  /// What a snapshot shares is not written in place.
  @Test(arguments: [TransferMethod.threads, .ring, .native])
  func aSnapshotKeepsWhatItHas(method: TransferMethod) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("image")
      try ReferenceTool.create(image, format: "qcow2", size: 1 << 20)
      try ReferenceTool.io(["write -q -P 1 0 1M"], on: image, format: "qcow2")
      try ReferenceTool.qemuImg("snapshot", "-c", "before", image)
      let chain = try ImageOpener.open(image, OpenOptions(format: "qcow2", access: .readWrite))
      var options = BenchmarkOptions()
      options.kind = .write(pattern: 2)
      options.transfer = method
      options.requestCount = 512
      options.depth = 8
      _ = try Benchmark.run(on: chain, options)
      try chain.close()
      #expect(try ReferenceTool.content(of: image, format: "qcow2", in: folder).holdsOnly(2))
      try ReferenceTool.qemuImg("snapshot", "-a", "before", image)
      #expect(try ReferenceTool.content(of: image, format: "qcow2", in: folder).holdsOnly(1))
      try ReferenceTool.qemuImg("check", "-q", image)
    }
  }
}
