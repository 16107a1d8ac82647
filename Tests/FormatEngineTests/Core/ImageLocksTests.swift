@testable import FormatEngine
import TestSupport
import Testing

/// Which opens of an image go together.
@Suite struct ImageLocksTests {
  private func options(_ access: FileAccess, _ sharing: Sharing = .asFormatAllows) -> OpenOptions {
    var options = OpenOptions(access: access)
    options.sharing = sharing
    return options
  }

  private func expectLocked(_ body: () throws -> ImageChain) {
    let error = #expect(throws: EngineError.self) { try body() }
    #expect(error?.code == .locked)
  }

  @Test func anImageHasOneWriterOrManyReaders() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.create(path, format: "qcow2", size: 1 << 20)
      do {
        let first = try ImageOpener.open(path), second = try ImageOpener.open(path)
        expectLocked { try ImageOpener.open(path, options(.readWrite)) }
        withExtendedLifetime((first, second)) {}
      }
      let writer = try ImageOpener.open(path, options(.readWrite))
      expectLocked { try ImageOpener.open(path) }
      expectLocked { try ImageOpener.open(path, options(.readWrite)) }
      #expect(try ImageOpener.open(path, options(.readOnly, .anybody)).virtualSize == 1 << 20)
      let error = #expect(throws: EngineError.self) {
        try ImageOpener.open(path, options(.readWrite, .anybody))
      }
      #expect(error?.message == "force-share=on can only be used with read-only images")
      try writer.close()
      try ImageOpener.open(path, options(.readWrite)).close()
    }
  }

  /// What there is to see of its files when it is closed is its own work.
  @Test(arguments: [
    "driver=qcow2,file.filename=", "driver=raw,file.driver=qcow2,file.file.filename=",
    "driver=qcow2,file.driver=blkdebug,file.image.filename=",
  ])
  func aClosingIsOverBeforeOthersMayWrite(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.create(path, format: "qcow2", size: 1 << 20)
      let chain = try ImageOpener.open(ImageSpecification(options: options + path), self.options(.readWrite))
      try chain.writeBytes([1], at: 0)
      var noteCount = 0
      try chain.close {
        noteCount += 1
        expectLocked { try ImageOpener.open(path, self.options(.readWrite)) }
      }
      #expect(noteCount == 1)
      try ImageOpener.open(path, self.options(.readWrite)).close()
    }
  }

  /// Of bytes as they are a command does not say that nobody may change them; a mount does.
  @Test func aPlainDiskIsSharedUnlessItMustStayTheSame() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 1, count: 4096), to: "disk.raw")
      let name = "json:{\"driver\":\"raw\",\"file.filename\":\"\(path)\"}"
      let writer = try ImageOpener.open(name, options(.readWrite))
      let other = try ImageOpener.open(name, options(.readWrite))
      expectLocked { try ImageOpener.open(name, options(.readOnly, .readersOnly)) }
      try writer.close()
      try other.close()
      let mount = try ImageOpener.open(name, options(.readOnly, .readersOnly))
      let reader = try ImageOpener.open(name, options(.readOnly, .readersOnly))
      expectLocked { try ImageOpener.open(name, options(.readWrite)) }
      withExtendedLifetime((mount, reader)) {}
    }
  }

  @Test func nodesSayWhetherTheirFilesAreLocked() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image"), overlay = folder.file("overlay")
      try ReferenceTool.create(path, format: "qcow2", size: 1 << 20)
      try ReferenceTool.create(overlay, format: "qcow2", size: 1 << 20, over: (path, "qcow2"))
      let writer = try ImageOpener.open(path, options(.readWrite))
      for (text, opens) in [
        ("driver=qcow2,file.filename=\(path)", false),
        ("driver=qcow2,file.filename=\(path),file.locking=on", false),
        ("driver=qcow2,file.filename=\(path),file.locking=off", true),
        ("driver=qcow2,file.filename=\(path),force-share=on", true),
        ("driver=qcow2,file.filename=\(path),force-share=off", false),
        ("driver=qcow2,file.filename=\(path),file.force-share=on", true),
        ("driver=qcow2,file.filename=\(path),force-share=on,file.force-share=off", false),
        ("driver=file,filename=\(path)", true), ("driver=raw,file.filename=\(path)", true),
        // A piece of it is as long as it is.
        ("driver=raw,size=512,file.filename=\(path)", false),
        // What lies below shares what the image shares.
        ("driver=qcow2,file.filename=\(overlay)", false),
        ("driver=qcow2,file.filename=\(overlay),force-share=on", true),
        ("driver=qcow2,file.filename=\(overlay),backing.force-share=on", true),
      ] {
        let image = ImageSpecification(options: text)
        guard !opens else {
          _ = try ImageOpener.open(image)
          continue
        }
        let error = #expect(throws: EngineError.self) { try ImageOpener.open(image) }
        #expect(error?.code == .locked, "\(text)")
      }
      try writer.close()
    }
  }

  /// The file that is written and those below it are opened twice for that: once in the chain, once for writing.
  @Test(arguments: [
    ("qcow2", [] as [String]), ("qcow2", ["data_file=base-data"]), ("vmdk", ["subformat=twoGbMaxExtentFlat"]),
    ("vmdk", ["subformat=twoGbMaxExtentSparse"]), ("raw", []),
  ])
  func whatLiesBelowIsWrittenWhereTheChainReadsIt(_ format: String, _ createOptions: [String]) throws {
    try TemporaryFolder.with { folder in
      let (base, top) = (folder.file("base"), folder.file("top"))
      let size = format == "vmdk" ? 1 << 20 : 2 << 20
      try ReferenceTool.create(
        base, format: format, size: 1 << 20, options: createOptions, folder: folder.path)
      try ReferenceTool.create(top, format: "qcow2", size: size, over: (base, format))
      try ReferenceTool.io(["write -P 7 0 64k"], on: top, format: "qcow2", folder: folder.path)
      let opening = options(.readWrite)
      let chain = try ImageOpener.open(top, opening)
      do {
        let lower = try ImageOpener.reopenForWriting(chain, from: 1, opening)
        expectLocked { try ImageOpener.open(base, options(.readOnly, .readersOnly)) }
        try Committer.commit(chain, at: 1, into: lower)
      }
      // It is only read again, by the chain.
      expectLocked { try ImageOpener.open(top) }
      let again = try ImageOpener.open(base, OpenOptions(format: format))
      #expect(try again.readAll().prefix(65536).holdsOnly(7))
      #expect(again.virtualSize == UInt64(size))
      try chain.close()
    }
  }

  @Test func aBaseThatOthersReadIsNotWritten() throws {
    try TemporaryFolder.with { folder in
      let (base, top) = (folder.file("base"), folder.file("top"))
      try ReferenceTool.create(base, format: "qcow2", size: 1 << 20)
      try ReferenceTool.create(top, format: "qcow2", size: 1 << 20, over: (base, "qcow2"))
      let reader = try ImageOpener.open(base)
      let opening = options(.readWrite)
      let chain = try ImageOpener.open(top, opening)
      expectLocked { try ImageOpener.reopenForWriting(chain, from: 1, opening) }
      // Nothing of the attempt stays.
      _ = try ImageOpener.open(base)
      withExtendedLifetime(reader) {}
      try chain.close()
    }
  }

  /// Its file is the disk of another image: both stay locked until both are closed, and writing it once more is no obstacle.
  @Test func anImageInsideOfAnImageIsLockedToItsEnd() throws {
    try TemporaryFolder.with { folder in
      let outer = folder.file("outer"), inner = folder.file("inner")
      try ReferenceTool.create(inner, format: "qcow2", size: 1 << 20)
      try ReferenceTool.create(outer, format: "qcow2", size: 4 << 20)
      try ReferenceTool.qemuImg("convert", "-n", "-f", "raw", "-O", "qcow2", inner, outer)
      let image = ImageSpecification(options: "driver=qcow2,file.driver=qcow2,file.file.filename=\(outer)")
      do {
        let reader = try ImageOpener.open(image)
        expectLocked { try ImageOpener.open(outer, options(.readWrite)) }
        let writer = try ImageOpener.reopenForWriting(reader, from: 0, options(.readWrite))
        expectLocked { try ImageOpener.open(outer) }
        try writer.writeBytes([1], at: 0)
        try writer.close()
        _ = try ImageOpener.open(outer)
        withExtendedLifetime(reader) {}
      }
      // The inner image writes its tables when it is closed: the outer one is not free before.
      let writer = try ImageOpener.open(image, options(.readWrite))
      let file = try #require(writer.members[0].inner)
      writer.members[0].locked?.unlock()
      expectLocked { try ImageOpener.open(outer) }
      try writer.close()
      try ImageOpener.open(outer, options(.readWrite)).close()
      withExtendedLifetime(file) {}
    }
  }

  @Test func filesThatTheCommandLineGivesAreLockedAsItSays() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image"), data = folder.file("data")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "data_file=\(data),data_file_raw=on", path, "1M")
      let other = try FileStore.open(data, access: .readWrite)
      try other.lock(LockRequest(taking: [.consistentRead, .write, .resize], sharing: .consistentRead))
      for (options, opens) in [
        ("", false), ("locking=auto", false), ("locking=off", true), ("force-share=on", true),
      ] {
        let more = options.isEmpty ? "" : ",data-file.\(options)"
        let image = ImageSpecification(
          options:
            "driver=qcow2,file.filename=\(path),data-file.driver=file,data-file.filename=\(data)\(more)")
        guard !opens else {
          _ = try ImageOpener.open(image)
          continue
        }
        expectLocked { try ImageOpener.open(image) }
      }
      withExtendedLifetime(other) {}
    }
  }

  /// All of its files are open, and locked, as far as the process may have so many.
  @Test func everyExtentOfALongDiskIsLocked() throws {
    try TemporaryFolder.with { folder in
      for number in 0..<70 { try folder.write([UInt8](repeating: 0, count: 512), to: "f\(number)") }
      let lines = (0..<70).map { "RW 1 FLAT \"f\($0)\" 0" }
      let path = try folder.write(VMDKImages.descriptor(lines), to: "disk")
      let writer = try ImageOpener.open(path, options(.readWrite))
      expectLocked {
        try ImageOpener.open(ImageSpecification(path: folder.file("f69")), options(.readOnly, .readersOnly))
      }
      try writer.close()
    }
  }
}
