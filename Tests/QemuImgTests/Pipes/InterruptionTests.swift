import Foundation
import TestSupport
import Testing

/// Commands that get signals in their middle, as real processes.
@Suite struct InterruptionTests {
  /// Starts our qemu-img.
  private static func start(_ arguments: String..., in folder: TemporaryFolder) throws -> TestProcess {
    try TestProcess([try BuiltProduct.qemuImg.path] + arguments, folder: folder.path)
  }

  private static func byteCount(_ path: String) -> Int {
    (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
  }

  /// Waits until the file has grown past some bytes: the work is in its middle then.
  private static func wait(for process: TestProcess, until path: String, exceeds count: Int) throws {
    for _ in 0..<20_000 {
      if byteCount(path) > count { return }
      guard process.isRunning else { break }
      usleep(500)
    }
    throw TestFailure("'\(process.command)' came to no middle: \(process.wait(timeout: 1).stderrText)")
  }

  /// base: 1 MiB of bytes, top: 12 MiB of others. Gives what is read of the top.
  private static func makeChain(_ format: String, _ options: [String], in folder: TemporaryFolder) throws
    -> [UInt8]
  {
    var random = SeededRandom(seed: 12)
    try ReferenceTool.create("base", format: format, size: 16 << 20, options: options, folder: folder.path)
    try ReferenceTool.io(["write -P 7 0 1M"], on: "base", format: format, folder: folder.path)
    try folder.write(random.bytes(12 << 20), to: "raw")
    try ReferenceTool.create(
      "top", format: "qcow2", size: 16 << 20, over: ("base", format), folder: folder.path)
    let bytes = try Files.read(folder.file("raw"))
    try ReferenceTool.qemuImg.run(
      ["convert", "-n", "-f", "raw", "-O", "qcow2", "raw", "top"], folder: folder.path
    )
    .expecting()
    return bytes + [UInt8](repeating: 0, count: 4 << 20)
  }

  @Test(
    arguments: [("qcow2", ["lazy_refcounts=on"]), ("qcow2", []), ("qed", [])], [SIGINT, SIGTERM, SIGHUP])
  func aCommitThatIsEndedLeavesWholeImages(_ base: (format: String, options: [String]), _ signal: CInt) throws
  {
    try TemporaryFolder.with { folder in
      let disk = try Self.makeChain(base.format, base.options, in: folder)
      let process = try Self.start("commit", "-r", "4M", "top", in: folder)
      try Self.wait(for: process, until: folder.file("base"), exceeds: 3 << 20)
      process.signal(signal)
      let result = process.wait(timeout: 10)
      #expect(result.status == 128 + Int(signal) && !result.timedOut)
      #expect(result.stdoutText == "" && result.stderrText == "")
      for (name, format) in [("base", base.format), ("top", "qcow2")] {
        // Neither leaks nor a mark that somebody is still writing.
        let info = try ReferenceTool.qemuImg("info", "-U", "-f", format, name, folder: folder.path).stdoutText
        #expect(!info.contains("cleanly shut down: no"))
        let verdict = try ReferenceTool.check(name, format: format, folder: folder.path)
        #expect(verdict.corruptions + verdict.leaks == 0, "\(verdict.text)")
      }
      #expect(try ReferenceTool.content(of: folder.file("top"), format: "qcow2", in: folder) == disk)
      try BuiltProduct.qemuImg.run(["commit", "-q", "top"], folder: folder.path).expecting()
      #expect(try ReferenceTool.content(of: folder.file("base"), format: base.format, in: folder) == disk)
    }
  }

  @Test(arguments: ["qcow2", "qed"]) func aRebaseThatIsEndedLeavesAWholeImage(_ format: String) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 13)
      let piece = random.bytes(1 << 20)
      try folder.write((0..<160).flatMap { _ in piece }, to: "base")
      try ReferenceTool.create(
        "top", format: format, size: 160 << 20, over: ("base", "raw"), folder: folder.path)
      let process = try Self.start("rebase", "-b", "", "top", in: folder)
      try Self.wait(for: process, until: folder.file("top"), exceeds: 2 << 20)
      process.signal(SIGINT)
      #expect(process.wait(timeout: 10).status == 128 + Int(SIGINT))
      let verdict = try ReferenceTool.check("top", format: format, folder: folder.path)
      #expect(verdict.corruptions + verdict.leaks == 0, "\(verdict.text)")
      try ReferenceTool.qemuImg(
        "compare", "-q", "-f", format, "-F", "raw", "top", "base", folder: folder.path)
    }
  }

  /// A new image is not finished, as with qemu-img; nothing else is left, and what is read stays as it was.
  @Test(arguments: [SIGINT, SIGTERM]) func aConvertThatIsEndedEndsAtOnce(_ signal: CInt) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 14)
      let disk = random.bytes(12 << 20)
      try folder.write(disk, to: "disk")
      let process = try Self.start(
        "convert", "-r", "4M", "-f", "raw", "-O", "qcow2", "disk", "image", in: folder)
      try Self.wait(for: process, until: folder.file("image"), exceeds: 3 << 20)
      process.signal(signal)
      #expect(process.wait(timeout: 10).status == 128 + Int(signal))
      #expect(try folder.names() == ["disk", "image"])
      #expect(try Files.read(folder.file("disk")) == disk)
    }
  }

  @Test func aConvertIntoAnImageThatWasThereClosesIt() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 15)
      let disk = random.bytes(12 << 20)
      try folder.write(disk, to: "disk")
      try ReferenceTool.create(
        "image", format: "qcow2", size: disk.count, options: ["lazy_refcounts=on"], folder: folder.path)
      let process = try Self.start(
        "convert", "-n", "-r", "4M", "-f", "raw", "-O", "qcow2", "disk", "image", in: folder)
      try Self.wait(for: process, until: folder.file("image"), exceeds: 3 << 20)
      process.signal(SIGTERM)
      #expect(process.wait(timeout: 10).status == 128 + Int(SIGTERM))
      let verdict = try ReferenceTool.check("image", folder: folder.path)
      #expect(verdict.corruptions + verdict.leaks == 0, "\(verdict.text)")
    }
  }

  /// Nothing comes out of the pipe any more, and what goes into it next is never awaited.
  @Test func aStalledPipeHoldsUpNoSignal() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(
        "image", format: "qcow2", size: 16 << 20, options: ["lazy_refcounts=on"], folder: folder.path)
      let process = try TestProcess(
        [
          "/bin/bash", "-c",
          "exec 3< <(head -c 5M /dev/urandom; exec sleep 60); exec \(try BuiltProduct.qemuImg.path) convert -n -f raw"
            + " -O qcow2 /dev/fd/3 image",
        ], folder: folder.path)
      try Self.wait(for: process, until: folder.file("image"), exceeds: 2 << 20)
      process.signal(SIGINT)
      let result = process.wait(timeout: 10)
      #expect(result.status == 128 + Int(SIGINT) && !result.timedOut)
      let verdict = try ReferenceTool.check("image", folder: folder.path)
      #expect(verdict.corruptions + verdict.leaks == 0, "\(verdict.text)")
    }
  }

  /// The target fails while one of the workers waits for the pipe.
  @Test func aStalledPipeHidesNoError() throws {
    try TemporaryFolder.with { folder in
      let process = try TestProcess(
        [
          "/bin/bash", "-c",
          "trap '' XFSZ; ulimit -f 2048; exec 3< <(head -c 8M /dev/urandom; exec sleep 60); exec"
            + " \(try BuiltProduct.qemuImg.path) convert -f raw -O raw /dev/fd/3 image",
        ], folder: folder.path)
      let result = process.wait(timeout: 10)
      #expect(result.status == 1 && !result.timedOut)
      #expect(result.stderrText.contains("File too large"))
    }
  }

  /// What they change is changed as a whole or not at all; the first signal does not cut it in two.
  @Test(arguments: [
    ["snapshot", "-c", "two", "image"], ["snapshot", "-a", "one", "image"],
    ["snapshot", "-d", "one", "image"], ["bitmap", "--add", "--clear", "image", "b"],
    ["check", "-q", "-r", "all", "image"],
  ])
  func changesOfMetadataAreWhole(_ arguments: [String]) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(
        "image", format: "qcow2", size: 16 << 20, options: ["cluster_size=512"], folder: folder.path)
      try ReferenceTool.io(
        ["write -P 7 0 2M", "write -P 8 8M 64k"], on: "image", format: "qcow2", folder: folder.path)
      try ReferenceTool.qemuImg("snapshot", "-c", "one", "image", folder: folder.path)
      let disk = try ReferenceTool.content(of: folder.file("image"), format: "qcow2", in: folder)
      let process = try TestProcess(
        [
          try BuiltProduct.qemuImg.path, "-T", "store_read,file=\(folder.file("log"))",
        ] + arguments, folder: folder.path)
      // It is past its opening, and in the middle of its look at the tables.
      try Self.wait(for: process, until: folder.file("log"), exceeds: 300)
      process.signal(SIGTERM)
      let result = process.wait(timeout: 20)
      #expect([0, 128 + Int(SIGTERM)].contains(result.status), "\(result.stderrText)")
      let verdict = try ReferenceTool.check("image", folder: folder.path)
      #expect(verdict.corruptions + verdict.leaks == 0, "\(verdict.text)")
      #expect(try ReferenceTool.content(of: folder.file("image"), format: "qcow2", in: folder) == disk)
    }
  }

  /// Both wait while the process is stopped, so that the second one comes before the work can end.
  @Test func theSecondSignalEndsTheProcessAtOnce() throws {
    try TemporaryFolder.with { folder in
      _ = try Self.makeChain("qcow2", [], in: folder)
      let process = try Self.start("commit", "-r", "4M", "top", in: folder)
      try Self.wait(for: process, until: folder.file("base"), exceeds: 3 << 20)
      for number in [SIGSTOP, SIGINT, SIGTERM, SIGCONT] { process.signal(number) }
      let status = process.wait(timeout: 10).status
      #expect(status == 128 + Int(SIGTERM) || status == 128 + Int(SIGINT))
    }
  }

  @Test func ignoredSignalsStayIgnored() throws {
    try TemporaryFolder.with { folder in
      _ = try Self.makeChain("qcow2", [], in: folder)
      let process = try TestProcess(
        ["/bin/sh", "-c", "trap '' HUP; exec \(try BuiltProduct.qemuImg.path) commit -r 8M top"],
        folder: folder.path)
      try Self.wait(for: process, until: folder.file("base"), exceeds: 3 << 20)
      process.signal(SIGHUP)
      let result = process.wait(timeout: 20)
      #expect(result.status == 0)
      #expect(result.stdoutText == "Image committed.\n")
    }
  }

  /// SIGUSR1 asks how far it is, again and again, and disturbs no read and no write.
  @Test(arguments: [
    ["commit", "-r", "12M", "top"], ["convert", "-r", "12M", "-O", "qcow2", "top", "new"],
    ["convert", "-q", "-r", "12M", "-O", "raw", "-o", "preallocation=falloc", "top", "new"],
  ])
  func questionsAreAnsweredAndDisturbNothing(_ arguments: [String]) throws {
    try TemporaryFolder.with { folder in
      let disk = try Self.makeChain("qcow2", [], in: folder)
      let process = try TestProcess([try BuiltProduct.qemuImg.path] + arguments, folder: folder.path)
      let written = folder.file(arguments[0] == "commit" ? "base" : "new")
      try Self.wait(for: process, until: written, exceeds: arguments[0] == "commit" ? 3 << 20 : 1 << 20)
      while process.isRunning {
        process.signal(SIGUSR1)
        usleep(1000)
      }
      let result = process.wait()
      #expect(result.status == 0)
      let lines = result.stderrText.split(separator: "\n")
      #expect(lines.count > 3)
      #expect(lines.allSatisfy { $0.hasPrefix("    (") && $0.hasSuffix("/100%)") })
      let format = arguments.contains("raw") ? "raw" : "qcow2"
      #expect(try ReferenceTool.content(of: written, format: format, in: folder) == disk)
    }
  }
}
