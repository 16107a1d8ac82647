import Glibc
import TestSupport
import Testing

/// What the cache modes of the commands do to the host's page cache.
@Suite struct CacheModeTests {
  private func source(_ folder: TemporaryFolder, byteCount: Int) throws -> String {
    var random = SeededRandom(seed: 5)
    let path = try folder.write(random.bytes(byteCount), to: "source.raw")
    PageCache.drop(path)
    try #require(PageCache.pageCount(of: path) == 0)
    return path
  }

  @Test(arguments: ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"])
  func imagesArePastTheCacheOnBothSides(_ format: String) throws {
    try TemporaryFolder.with { folder in
      // An odd number of sectors, so that the end lies inside of a page.
      let source = try source(folder, byteCount: 3 << 20 + 512)
      for mode in ["none", "directsync"] {
        let target = folder.file(mode)
        try BuiltProduct.qemuImg.run(
          ["convert", "-f", "raw", "-O", format, "-T", "none", "-t", mode, source, target]
        ).expecting()
        #expect(PageCache.pageCount(of: source) == 0, "\(mode)")
        #expect(PageCache.pageCount(of: target) == 0, "\(mode)")
        try BuiltProduct.qemuImg.run(
          ["compare", "-T", "none", "-f", "raw", "-F", format, source, target]
        ).expecting()
        #expect(PageCache.pageCount(of: target) == 0, "\(mode)")
        try ReferenceTool.qemuImg.run(["compare", "-f", "raw", "-F", format, source, target]).expecting()
        PageCache.drop(source)
      }
    }
  }

  @Test func otherModesFillTheCache() throws {
    try TemporaryFolder.with { folder in
      let source = try source(folder, byteCount: 1 << 20)
      for mode in ["writeback", "writethrough", "unsafe"] {
        PageCache.drop(source)
        try BuiltProduct.qemuImg.run(
          ["convert", "-f", "raw", "-O", "raw", "-T", mode, "-t", mode, source, folder.file(mode)]
        ).expecting()
        #expect(PageCache.pageCount(of: source) == 256, "\(mode)")
        #expect(PageCache.pageCount(of: folder.file(mode)) == 256, "\(mode)")
      }
    }
  }

  /// Options of a node hold for what lies below it, unless that says something else.
  @Test func optionsOfNodesAreInherited() throws {
    try TemporaryFolder.with { folder in
      let source = try source(folder, byteCount: 1 << 20)
      let top = folder.file("top")
      try BuiltProduct.qemuImg.run(["create", "-q", "-f", "qcow2", "-b", source, "-F", "raw", top])
        .expecting()
      for (options, pageCount) in [
        ("cache.direct=on", 0), ("cache.direct=on,file.cache.direct=off", 0),
        ("file.cache.direct=on", 256), ("cache.direct=on,backing.cache.direct=off", 256),
      ] {
        PageCache.drop(source)
        try BuiltProduct.qemuImg.run(
          [
            "compare", "--image-opts", "driver=qcow2,\(options),file.filename=\(top)",
            "driver=null-co,size=1M",
          ]
        ).expecting(1)
        // It ends at the first difference, but reads some way ahead.
        #expect((PageCache.pageCount(of: source) ?? 0 > 0) == (pageCount > 0), "\(options)")
      }
    }
  }

  /// A file system of which all files are in the page cache.
  @Test(.enabled(if: geteuid() == 0))
  func fileSystemWithoutDirectAccess() throws {
    try TemporaryFolder.with { folder in
      let tool = try BuiltProduct.qemuImg.path
      let script = """
        mkdir m; mount -t ramfs none m || exit 99
        truncate -s 1M m/a; truncate -s 1M b
        for tool in \(tool) \(ReferenceTool.qemuImg.path); do
          for words in '-f raw -T none m/a c' '-f raw -t none b m/c' '-f raw -O qcow2 -t none b m/d'; do
            $tool convert $words; echo $?; ls m; rm -f c m/c m/d
          done
          $tool info --image-opts driver=raw,cache.direct=on,file.filename=m/a; echo $?
        done > out 2>&1
        """
      let result = try TestProcess.run(
        ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script], folder: folder.path)
      guard result.status != 99 else { return }
      let lines = String(decoding: try Files.read(folder.file("out")), as: UTF8.self)
        .split(separator: "\n", omittingEmptySubsequences: false)
      let half = lines.count / 2
      #expect(half > 8 && Array(lines[..<half]) == Array(lines[half..<half * 2]), "\(lines)")
    }
  }
}
