import FormatEngine
import TestSupport
import Testing

/// Files that fail by rules: the driver blkdebug.
@Suite struct DebugStoreTests {
  private func errno(_ body: () throws(EngineError) -> Void) -> CInt? {
    do throws(EngineError) {
      try body()
      return nil
    } catch { return error.errno }
  }

  private func image(_ folder: TemporaryFolder) throws -> String {
    let path = folder.file("image")
    try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", path, "1M")
    try ReferenceTool.io(["write -P 7 0 128k"], on: path, format: "qcow2")
    return path
  }

  @Test func guestBytesFailAndTablesDoNot() throws {
    try TemporaryFolder.with { folder in
      let path = try image(folder)
      let rules = try folder.write(
        Array("# rules\n[inject-error]\nevent = \"read_aio\"\nerrno = \"28\"\nonce = \"on\"\n".utf8),
        to: "rules")
      let chain = try ImageOpener.open("blkdebug:\(rules):\(path)")
      #expect(chain.members[0].formatName == "qcow2")
      #expect(chain.members[0].name == "blkdebug:\(rules):\(path)")
      #expect(errno { () throws(EngineError) in _ = try chain.readBytes(at: 0, count: 512) } == 28)
      #expect(try chain.readBytes(at: 0, count: 512) == [UInt8](repeating: 7, count: 512))
    }
  }

  @Test func sectorsAndKindsOfRequests() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 7, count: 8192), to: "raw")
      let chain = try ImageOpener.open(
        ImageSpecification(
          options:
            "driver=raw,file.driver=blkdebug,file.image.filename=\(path),file.inject-error.0.event=none,"
            + "file.inject-error.0.iotype=read,file.inject-error.0.sector=3,file.inject-error.1.event=none,"
            + "file.inject-error.1.iotype=write,file.inject-error.1.errno=30"),
        OpenOptions(access: .readWrite))
      #expect(errno { () throws(EngineError) in _ = try chain.readBytes(at: 0, count: 1536) } == nil)
      #expect(errno { () throws(EngineError) in _ = try chain.readBytes(at: 1535, count: 2) } == 5)
      #expect(errno { () throws(EngineError) in _ = try chain.readBytes(at: 2048, count: 6144) } == nil)
      #expect(errno { () throws(EngineError) in try chain.writeBytes([1], at: 0) } == 30)
    }
  }

  @Test func statesChangeWithEvents() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 7, count: 8192), to: "raw")
      let name =
        #"json:{"driver":"raw","file":{"driver":"blkdebug","image":{"filename":"\#(path)"},"#
        + #""set-state":[{"event":"write_aio","new_state":2}],"#
        + #""inject-error":[{"event":"write_aio","state":2,"errno":5},{"event":"l2_load"}]}}"#
      let chain = try ImageOpener.open(name, OpenOptions(access: .readWrite))
      #expect(errno { () throws(EngineError) in _ = try chain.readBytes(at: 0, count: 512) } == nil)
      #expect(errno { () throws(EngineError) in try chain.writeBytes([1], at: 0) } == 5)
    }
  }

  @Test(arguments: [
    "[inject-error]\nevent = read_aio\n", "event = \"x\"\n", "[foo]\na = \"b\"\n", "[inject-error]\n",
    "[inject-error]\nevent = \"x\"\nfoo = \"b\"\n", "[inject-error]\nevent = \"x\"\nerrno = \"y\"\n",
  ])
  func wrongRulesAreErrors(_ text: String) throws {
    try TemporaryFolder.with { folder in
      let rules = try folder.write(Array(text.utf8), to: "rules")
      let path = try folder.write([1], to: "raw")
      #expect(
        errno { () throws(EngineError) in _ = try ImageOpener.open("blkdebug:\(rules):\(path)") } != nil)
    }
  }

  /// An image must not make us read a file of rules.
  /// Nothing of it stays but what it says of every node.
  @Test func aNodeWithoutRulesHasOptionsAllTheSame() throws {
    try TemporaryFolder.with { folder in
      let image = "driver=blkdebug,image.driver=raw,image.file.filename=\(try self.image(folder))"
      func message(_ option: String, _ access: FileAccess = .readOnly) -> String? {
        do throws(EngineError) {
          _ = try ImageOpener.open(
            ImageSpecification(options: "\(image),\(option)"), OpenOptions(access: access))
          return nil
        } catch { return error.message }
      }
      #expect(message("align=512") == nil)
      #expect(message("foo=1") == "Block protocol 'blkdebug' doesn't support the option 'foo'")
      #expect(message("read-only=on") == nil)
      #expect(message("read-only=on", .readWrite) == "Block node is read-only")
      #expect(
        message("force-share=on", .readWrite) == "force-share=on can only be used with read-only images")
    }
  }

  @Test func recordedNamesCannotNameRules() throws {
    try TemporaryFolder.with { folder in
      let path = try image(folder)
      let rules = try folder.write(Array("[set-state]\nevent = \"x\"\n".utf8), to: "rules")
      for name in [
        "blkdebug:\(rules):\(path)",
        #"json:{"file":{"driver":"blkdebug","config":"\#(rules)","image":{"filename":"\#(path)"}}}"#,
      ] {
        let overlay = folder.file("overlay")
        try ReferenceTool.qemuImg(
          "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "qcow2", overlay, "1M")
        #expect(errno { () throws(EngineError) in _ = try ImageOpener.open(overlay) } != nil)
      }
    }
  }
}
