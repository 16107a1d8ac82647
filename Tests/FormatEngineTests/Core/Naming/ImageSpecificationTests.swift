import FormatEngine
import TestSupport
import Testing

/// Trees of drivers: from command lines, and from names that images record.
@Suite struct ImageSpecificationTests {
  private func message(opening name: String, _ options: OpenOptions = OpenOptions()) -> String? {
    do throws(EngineError) {
      _ = try ImageOpener.open(name, options)
      return nil
    } catch { return error.message }
  }

  private func overlay(_ name: String, over backing: String, _ folder: TemporaryFolder) throws -> String {
    let path = folder.file(name)
    try ReferenceTool.qemuImg.run([
      "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, "64k",
    ]).expecting()
    return path
  }

  @Test func rawDiskInsideOfAFile() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 5)
      let bytes = random.bytes(8192)
      let path = try folder.write(bytes, to: "file")
      let name = #"json:{"driver":"raw","offset":1024,"size":"2k","file":{"filename":"\#(path)"}}"#
      let chain = try ImageOpener.open(name)
      #expect(chain.virtualSize == 2048)
      #expect(try chain.readAll() == Array(bytes[1024..<3072]))
      #expect(try chain.extent(at: 512, limit: 100).extent.hostOffset == 1536)
      try chain.close()
      let writable = try ImageOpener.open(name, OpenOptions(access: .readWrite))
      try writable.writeBytes([UInt8](repeating: 7, count: 512), at: 1536)
      try writable.flush()
      let after = try Files.read(path)
      #expect(after == Array(bytes[..<2560]) + [UInt8](repeating: 7, count: 512) + Array(bytes[3072...]))
    }
  }

  @Test(arguments: [
    ("driver=null-co", "null-co://"), ("driver=null-aio,latency-ns=5,force-share=on", "null-aio://"),
    ("driver=raw,file.driver=null-co", "null-co://"),
    ("driver=null-co,size=1M", "json:{\"driver\": \"null-co\", \"size\": \"1M\"}"),
  ])
  func disksOfZerosAreCalledByTheirProtocol(_ options: String, _ name: String) throws {
    let disk = try ImageOpener.open(ImageSpecification(options: options))
    #expect(disk.members[0].name == name)
  }

  /// A file below a format that is the disk of another image.
  @Test func imageInsideOfAnImage() throws {
    try TemporaryFolder.with { folder in
      let inner = folder.file("inner"), outer = folder.file("outer")
      try ReferenceTool.qemuImg.run(["create", "-q", "-f", "qcow2", inner, "1M"]).expecting()
      let disk =
        "driver=qcow2,file.driver=raw,file.size=1M,file.file.driver=qcow2,file.file.file.filename=\(outer)"
      try ReferenceTool.qemuImg.run(["convert", "-f", "raw", "-O", "qcow2", inner, outer]).expecting()
      try ReferenceTool.qemuImg.run(["resize", "-q", outer, "1M"]).expecting()
      let chain = try ImageOpener.open(
        ImageSpecification(options: disk), OpenOptions(access: .readWrite))
      try chain.writeBytes([UInt8](repeating: 9, count: 70000), at: 1000)
      try chain.flush()
      let result = try ReferenceTool.qemuIO.run([
        "--image-opts", "-r", "-c", "read -P 9 1000 70000", "-c", "read -P 0 71000 100000",
        disk + ",force-share=on",
      ]).expecting()
      #expect(!result.stdoutText.contains("verification failed"), "\(result.stdoutText)")
      // The disk around it does not grow.
      let error = #expect(throws: EngineError.self) {
        for offset in stride(from: UInt64(0), to: 1 << 20, by: 65536) {
          try chain.writeBytes([UInt8](repeating: 1, count: 65536), at: offset)
        }
        try chain.flush()
      }
      #expect(error?.code == .noSpace)
    }
  }

  /// What images record goes through the one door for names, inside of trees as well.
  @Test func recordedTreesAskThePolicy() throws {
    try TemporaryFolder.with { folder in
      let secret = try folder.write([UInt8](repeating: 1, count: 512), to: "secret")
      let inside = try folder.makeFolder("inside")
      let allowed = try folder.write([UInt8](repeating: 2, count: 512), to: "inside/allowed")
      var options = OpenOptions()
      options.policy = ReferencePolicy(.folders([try AllowedFolder(inside)]))
      for (index, form) in [
        #"{"file":{"filename":"PATH"}}"#, #"{"driver":"raw","file":{"driver":"file","filename":"PATH"}}"#,
        #"{"driver":"raw","size":512,"file":{"driver":"raw","offset":0,"file.filename":"PATH"}}"#,
      ].enumerated() {
        for (path, isAllowed) in [(secret, false), ("\(inside)/../secret", false), (allowed, true)] {
          let tree = "json:" + form.replacing("PATH", with: path)
          let name = try overlay("inside/\(index)\(isAllowed)", over: tree, folder)
          let text = message(opening: name, options)
          #expect(
            isAllowed ? text == nil : text?.contains("outside of the folders that --allow-path") == true,
            "\(tree)")
          #expect(message(opening: name) == nil)
        }
      }
      options.policy = ReferencePolicy(.nowhere)
      let name = try overlay("none", over: #"json:{"file":{"filename":"\#(allowed)"}}"#, folder)
      #expect(message(opening: name, options)?.contains("no file that an image names") == true)
    }
  }

  @Test func recordedTreesThatComeBackAreLoops() throws {
    try TemporaryFolder.with { folder in
      let own = folder.file("own")
      for tree in [
        #"json:{"driver":"qcow2","file":{"filename":"OWN"}}"#,
        #"json:{"driver":"raw","size":512,"file":{"driver":"qcow2","file":{"filename":"OWN"}}}"#,
      ] {
        try ReferenceTool.qemuImg.run([
          "create", "-q", "-u", "-f", "qcow2", "-b", tree.replacing("OWN", with: own), "-F", "qcow2", own,
          "64k",
        ]).expecting()
        #expect(message(opening: own)?.contains("is a loop") == true)
      }
    }
  }

  @Test(arguments: [
    "json:{", "json:[]", #"json:{"driver":"qcow2"}"#, #"json:{"driver":"nbd","file":{"filename":"x"}}"#,
    #"json:{"driver":"raw","file":{"driver":"nbd","host":"x"}}"#, #"json:{"file":{"filename":"a\\u0000b"}}"#,
    #"json:{"driver":"raw","file":{"driver":"raw","file":{"driver":"raw"}}}"#,
  ])
  func recordedNonsenseIsAnError(_ tree: String) throws {
    try TemporaryFolder.with { folder in
      let name = try overlay("image", over: tree, folder)
      #expect(message(opening: name)?.hasPrefix("Could not open backing file: ") == true)
    }
  }

  /// 100 levels of drivers on a command line end in an error or an image, never in a crash.
  @Test func deepTrees() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([1, 2, 3], to: "file")
      for depth in [10, 100, 220] {
        let prefix = String(repeating: "file.", count: depth)
        let drivers = (0..<depth).map { String(repeating: "file.", count: $0) + "driver=raw" }
        let text = (drivers + ["\(prefix)filename=\(path)"]).joined(separator: ",")
        _ = try? ImageOpener.open(ImageSpecification(options: text))
      }
      let chain = try ImageOpener.open(
        ImageSpecification(options: "driver=raw,file.driver=raw,file.file.filename=\(path)"))
      #expect(chain.virtualSize == 512)
    }
  }

  @Test func namesSayWhatOthersWouldRead() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 1, count: 4096), to: "file")
      func name(_ options: String) throws -> String {
        try ImageOpener.open(ImageSpecification(options: options)).members[0].name
      }
      #expect(try name("driver=raw,file.filename=\(path)") == path)
      let shifted = try name("driver=raw,offset=512,file.filename=\(path)")
      #expect(
        shifted
          == #"json:{"offset": "512", "driver": "raw", "file": {"driver": "file", "filename": "\#(path)"}}"#)
      // The name leads to the same bytes.
      #expect(try ImageOpener.open(shifted).virtualSize == 3584)
    }
  }
}
