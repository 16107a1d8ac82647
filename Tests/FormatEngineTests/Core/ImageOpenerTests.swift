import FormatEngine
import Foundation
import TestSupport
import Testing

/// Chains of files, and names in images that must not be followed.
@Suite struct ImageOpenerTests {
  /// A qcow2 image of 512-byte clusters that names `backing`, whether or not that is there.
  private func overlay(
    _ name: String, over backing: String, _ folder: TemporaryFolder, format: String? = "qcow2"
  )
    throws
  {
    var values = OptionValues(Qcow2Format.createOptions)
    try values.set("cluster_size", to: "512")
    let request = CreateRequest(
      path: folder.file(name), virtualSize: 64 * KiB,
      backing: BackingReference(name: backing, format: format),
      options: values, references: ReferenceOpener())
    try Qcow2Format.create(on: try FileStore.create(folder.file(name), cache: .unflushed), request)
  }

  private func failure(opening path: String, _ options: OpenOptions = OpenOptions()) -> EngineError? {
    do throws(EngineError) {
      _ = try ImageOpener.open(path, options)
      return nil
    } catch { return error }
  }

  @Test func missingFileIsNotFound() {
    let error = failure(opening: "/nowhere/at/all.qcow2")
    #expect(error?.code == .notFound)
    #expect(error?.message == "Could not open '/nowhere/at/all.qcow2': No such file or directory")
  }

  @Test func foldersAndPipesAreRefusedWithoutWaiting() throws {
    try TemporaryFolder.with { folder in
      let fifo = folder.file("fifo")
      try TestProcess.run(["/usr/bin/mkfifo", fifo]).expecting(0)
      Deadline.within(seconds: 5, "opening a pipe") {
        for path in [folder.path, fifo] {
          for access in [FileAccess.readOnly, .readWrite] {
            let error = failure(opening: path, OpenOptions(access: access))
            #expect(error != nil && error?.message.isEmpty == false, "\(path)")
          }
        }
      }
    }
  }

  @Test func emptyFileIsAnEmptyRawDisk() throws {
    try TemporaryFolder.with { folder in
      let chain = try ImageOpener.open(try folder.write([], to: "empty"))
      #expect(chain.virtualSize == 0 && chain.members[0].formatName == "raw")
      #expect(try chain.allExtents().isEmpty)
      let error = failure(opening: folder.file("empty"), OpenOptions(format: "qcow2"))
      #expect(error?.code == .notThisFormat)
    }
  }

  @Test func unknownFormatIsRefused() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([1], to: "file")
      #expect(failure(opening: path, OpenOptions(format: "nonsense"))?.message == "Unknown driver 'nonsense'")
    }
  }

  @Test(arguments: ["nbd://localhost/x", "fuse:x", "http://x/y", "whatever:x"])
  func protocolsAreRefused(_ name: String) {
    #expect(failure(opening: name)?.code == .unsupported)
  }

  @Test func missingBackingFileIsNamed() throws {
    try TemporaryFolder.with { folder in
      try overlay("top", over: "gone.qcow2", folder)
      let error = try #require(failure(opening: folder.file("top")))
      #expect(error.code == .notFound)
      #expect(error.message.hasPrefix("Could not open backing file: Could not open '"))
      #expect(error.message.contains("gone.qcow2"))
      var alone = OpenOptions()
      alone.backing = .ignore
      #expect(try ImageOpener.open(folder.file("top"), alone).readAll().isZero)
    }
  }

  @Test func loopsAreFoundUnderAnyName() throws {
    try TemporaryFolder.with { folder in
      try overlay("self", over: "self", folder)
      try overlay("a", over: "b", folder)
      try overlay("b", over: "c", folder)
      try overlay("c", over: "a", folder)
      try overlay("links", over: "symlink", folder)
      try FileManager.default.createSymbolicLink(atPath: folder.file("symlink"), withDestinationPath: "links")
      try overlay("hard", over: "other-name", folder)
      try FileManager.default.linkItem(atPath: folder.file("hard"), toPath: folder.file("other-name"))
      for name in ["self", "a", "links", "hard"] {
        let error = try #require(failure(opening: folder.file(name)), "\(name)")
        #expect(error.code == .loop && error.message.contains("loop"), "\(error.message)")
      }
    }
  }

  @Test func symbolicLinkLoopIsAnError() throws {
    try TemporaryFolder.with { folder in
      try FileManager.default.createSymbolicLink(atPath: folder.file("x"), withDestinationPath: "y")
      try FileManager.default.createSymbolicLink(atPath: folder.file("y"), withDestinationPath: "x")
      #expect(failure(opening: folder.file("x")) != nil)
      try overlay("top", over: "x", folder)
      #expect(failure(opening: folder.file("top")) != nil)
    }
  }

  @Test func chainOfAThousandIsRefusedAndOfTwoHundredRead() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 7, count: 65536), to: "image0")
      for number in 1...1000 {
        try overlay(
          "image\(number)", over: "image\(number - 1)", folder, format: number == 1 ? "raw" : "qcow2")
      }
      let chain = try ImageOpener.open(folder.file("image199"))
      #expect(chain.members.count == ImageOpener.maximumDepth)
      #expect(try chain.readBytes(at: 4095, count: 2) == [7, 7])
      for name in ["image200", "image1000"] {
        let error = try #require(failure(opening: folder.file(name)))
        #expect(error.code == .tooLarge && error.message.contains("\(ImageOpener.maximumDepth)"))
      }
    }
  }

  /// Each image may have an L1 table of 32 MiB; only what is in it counts.
  @Test func tablesOfAChainHaveALimitTogether() throws {
    try TemporaryFolder.with { folder in
      let full = Data(repeating: 1, count: 32 << 20)
      for number in 0..<6 {
        let path = folder.file("image\(number)")
        try ReferenceTool.create(
          path, format: "qcow2", size: 2 << 50,
          over: number == 0 ? nil : (folder.file("image\(number - 1)"), "qcow2"))
        // The L1 table is where the header says.
        let file = try #require(FileHandle(forUpdatingAtPath: path))
        try file.seek(toOffset: 40)
        let place = try #require(try file.read(upToCount: 8)).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        try file.seek(toOffset: place)
        try file.write(contentsOf: full)
        try file.close()
      }
      #expect(try ImageOpener.open(folder.file("image4")).members.count == 5)
      let error = try #require(failure(opening: folder.file("image5")))
      #expect(error.code == .tooLarge && error.message.contains("memory"), "\(error.message)")
    }
  }

  @Test(arguments: ["json:{}", "nbd://host/x", "/dev/zero", "/", "fifo", "a\0b", "fuse:x", "file:"])
  func hostileBackingNamesAreRefusedWithoutWaiting(_ name: String) throws {
    try TemporaryFolder.with { folder in
      try TestProcess.run(["/usr/bin/mkfifo", folder.file("fifo")]).expecting(0)
      try overlay("top", over: name, folder, format: "raw")
      try Deadline.within(seconds: 5, "backing file \(name)") {
        let error = try #require(failure(opening: folder.file("top")))
        #expect(error.message.hasPrefix("Could not open backing file: "))
      }
    }
  }

  @Test(arguments: ["json:{}", "nbd://host/x", "/dev/zero", "/", "fifo", "file:image.data", "fuse:x"])
  func hostileDataFileNamesAreRefusedWithoutWaiting(_ name: String) throws {
    try TemporaryFolder.with { folder in
      try TestProcess.run(["/usr/bin/mkfifo", folder.file("fifo")]).expecting(0)
      let placeholder = "a-name-that-is-long-enough.data"
      var values = OptionValues(Qcow2Format.createOptions)
      try values.set("data_file", to: placeholder)
      let request = CreateRequest(
        path: folder.file("top"), virtualSize: 64 * KiB, options: values, references: ReferenceOpener())
      try Qcow2Format.create(on: try FileStore.create(folder.file("top"), cache: .unflushed), request)
      var image = Qcow2Bytes(bytes: try Files.read(folder.file("top")))
      let place = try #require(image.headerExtension(0x4441_5441))
      image.put(UInt64(name.utf8.count), at: place.offset - 4, width: 4)
      let room = (placeholder.utf8.count + 7) / 8 * 8
      image.bytes.replaceSubrange(
        place.offset..<place.offset + room, with: [UInt8](repeating: 0, count: room))
      // The extensions behind it no longer begin where they did, so it is the last one.
      image.bytes.replaceSubrange(place.offset..<place.offset + name.utf8.count, with: Array(name.utf8))
      let end = place.offset + (name.utf8.count + 7) / 8 * 8
      image.bytes.replaceSubrange(end..<end + 64, with: [UInt8](repeating: 0, count: 64))
      try folder.write(image.bytes, to: "top")
      try Deadline.within(seconds: 5, "data file \(name)") {
        let error = try #require(failure(opening: folder.file("top")))
        #expect(error.message.hasPrefix("Could not open data file: "))
        var inspecting = OpenOptions()
        inspecting.isForInspection = true
        #expect(throws: Never.self) { try ImageOpener.open(folder.file("top"), inspecting) }
      }
    }
  }

  @Test func backingFileIsRelativeToItsImage() throws {
    try TemporaryFolder.with { folder in
      _ = try folder.makeFolder("deep")
      try folder.write([UInt8](repeating: 9, count: 65536), to: "deep/base")
      try overlay("deep/top", over: "base", folder, format: "raw")
      #expect(try ImageOpener.open(folder.file("deep/top")).readBytes(at: 0, count: 1) == [9])
      try overlay("deep/prefixed", over: "file:base", folder, format: "raw")
      #expect(try ImageOpener.open(folder.file("deep/prefixed")).readBytes(at: 0, count: 1) == [9])
    }
  }

  @Test func backingFormatIsProbedWhereItIsNotRecorded() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 9, count: 65536), to: "raw-base")
      try overlay("middle", over: "raw-base", folder, format: nil)
      try overlay("top", over: "middle", folder, format: nil)
      let chain = try ImageOpener.open(folder.file("top"))
      #expect(chain.members.map(\.formatName) == ["qcow2", "qcow2", "raw"])
      // Recorded as raw, the very same file is raw.
      try overlay("raw-view", over: "middle", folder, format: "raw")
      #expect(
        try ImageOpener.open(folder.file("raw-view")).readBytes(at: 0, count: 4) == [0x51, 0x46, 0x49, 0xfb])
    }
  }

  @Test func policyGuardsTheWholeChain() throws {
    try TemporaryFolder.with { folder in
      let inside = try folder.makeFolder("inside")
      try folder.write([UInt8](repeating: 9, count: 65536), to: "secret")
      try overlay("inside/top", over: "../secret", folder, format: "raw")
      var options = OpenOptions()
      options.policy = ReferencePolicy(.folders([try AllowedFolder(inside)]))
      #expect(failure(opening: folder.file("inside/top"), options)?.code == .forbidden)
      options.policy = ReferencePolicy(.nowhere)
      #expect(failure(opening: folder.file("inside/top"), options)?.code == .forbidden)
      options.policy = ReferencePolicy(.folders([try AllowedFolder(folder.path)]))
      #expect(failure(opening: folder.file("inside/top"), options) == nil)
    }
  }
}
