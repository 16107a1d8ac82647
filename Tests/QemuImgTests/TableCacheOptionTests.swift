import TestSupport
import Testing

/// The sizes of the caches of a qcow2 image's tables, as the command line gives them.
@Suite struct TableCacheOptionTests {
  private func name(_ image: String, _ options: String) -> String {
    "driver=qcow2,\(options),file.filename=\(image)"
  }

  @Test(arguments: [
    "cache-size=1M,l2-cache-size=2M", "cache-size=1M,refcount-cache-size=2M",
    "cache-size=1M,refcount-cache-size=512k,l2-cache-size=512k", "l2-cache-entry-size=100",
    "l2-cache-entry-size=128k", "l2-cache-entry-size=4k", "cache-size=0", "l2-cache-size=7",
    "cache-size=1M,l2-cache-size=1M", "cache-size=1M,l2-cache-size=2M,l2-cache-entry-size=100",
  ])
  func contradictionsAreToldAsThePeerDoes(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("image.qcow2")
      try ReferenceTool.create(image, format: "qcow2", size: 1 << 30)
      let arguments = ["map", "--image-opts", name(image, options)]
      let ours = try BuiltProduct.qemuImg.run(arguments)
      let theirs = try ReferenceTool.qemuImg.run(arguments)
      #expect(ours.status == theirs.status)
      #expect(ours.stderrText == theirs.stderrText)
    }
  }

  /// Eight MiB of tables go by; what is held of them at once is what the option says.
  @Test func optionBoundsWhatIsHeld() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("image.qcow2")
      try ReferenceTool.create(
        image, format: "qcow2", size: 64 << 30, options: ["preallocation=metadata"])
      func peak(_ options: String) throws -> Int {
        let script = """
          import os, sys
          pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
          _, status, usage = os.wait4(pid, 0)
          assert status == 0
          print(usage.ru_maxrss)
          """
        let tool = try BuiltProduct.qemuImg.path
        let result = try TestProcess.run(
          [
            "/usr/bin/python3", "-c", script, tool, "bench", "-c", "4096", "-s", "4096", "-S", "16M",
            "--image-opts",
            name(image, options),
          ]
        ).expecting(0)
        return try #require(
          Int(result.stdoutText.trimmingPrefix(while: \.isWhitespace).prefix(while: \.isNumber)))
      }
      let (usual, small) = (try peak("cache-size=20M"), try peak("cache-size=64k"))
      #expect(usual - small > 4 * 1024, "\(usual) and \(small) KiB")
    }
  }
}
