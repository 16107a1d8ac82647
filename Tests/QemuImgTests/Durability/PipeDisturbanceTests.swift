import TestSupport
import Testing

/// Pipes that are not ready (EAGAIN), that take and give a part only, and calls that are interrupted (EINTR).
@Suite struct PipeDisturbanceTests {
  /// What runs disturbed, between a pipe and a pipe.
  private static let lines = [
    "cat disk.raw | $RUN convert -f raw -O qcow2 /dev/stdin image",
    "cat disk.raw | $RUN dd -f raw -O raw bs=64k if=/dev/stdin of=image",
    "$RUN convert -f raw -O raw disk.raw /dev/stdout | cat > image",
    "$RUN dd -f raw -O raw bs=50k if=disk.raw of=/dev/stdout | cat > image",
    "cat disk.raw | $RUN convert -f raw -O raw /dev/stdin /dev/stdout | cat > image",
  ]

  @Test(arguments: lines) func disturbedPipesLoseNothing(_ line: String) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 86)
      let disk = random.bytes(1 << 20) + [UInt8](repeating: 0, count: 1 << 18) + random.fill(1 << 19)
      try folder.write(disk, to: "disk.raw")
      let format = line.contains("-O qcow2") ? "qcow2" : "raw"
      let count = Effort.rounds(4)
      for _ in 0..<count {
        let seed = random.next()
        let run =
          "env LD_PRELOAD=\(try BuiltProduct.hostCalls.path) IMGFS_CALLS_FOLDER=\(folder.path)"
          + " IMGFS_CALLS_DISTURB=\(seed) \(try BuiltProduct.qemuImg.path)"
        let result = try TestProcess.run(
          ["/bin/bash", "-o", "pipefail", "-c", line], environment: ["RUN": run], folder: folder.path)
        #expect(result.status == 0 && result.stderrText.contains("qemu-img:") == false, "\(seed): \(result)")
        let now = try ReferenceTool.content(of: folder.file("image"), format: format, in: folder)
        #expect(ModelDisk.firstDifference(now, disk) == nil, "seed \(seed)")
      }
      Tally.add("disturbed runs", count)
    }
  }
}
