import Foundation
import TestSupport
import Testing

@testable import FormatEngine

/// Disks of several extents, links, and what writing leaves on disk.
@Suite struct VMDKLayerTests {
  /// A folder with `disk.vmdk`: zeros, a flat piece of a file, a sparse extent of QEMU, zeros, a read-only piece.
  private static func makeMixed(in folder: TemporaryFolder) throws -> ModelDisk {
    var random = SeededRandom(seed: 7)
    let flat = random.bytes(700_416)
    try folder.write(flat, to: "a flat one")
    try ReferenceTool.qemuImg(
      "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "part.vmdk", "1M",
      folder: folder.path)
    try ReferenceTool.io(["write -q -P 7 64k 100k"], on: "part.vmdk", format: "vmdk", folder: folder.path)
    let lines = [
      "RW 128 ZERO", "RW 1024 FLAT \"a flat one\" 64", "RW 2048 SPARSE \"part-s001.vmdk\"", "RW 128 ZERO",
      "RDONLY 128 FLAT \"a flat one\" 1200",
    ]
    try folder.write(VMDKImages.descriptor(lines), to: "disk.vmdk")
    var model = ModelDisk(byteCount: (128 + 1024 + 2048 + 128 + 128) * 512)
    model.write(Array(flat[64 * 512..<(64 + 1024) * 512]), at: 128 * 512)
    let sparse = (128 + 1024) * 512
    model.write([UInt8](repeating: 7, count: 100 << 10), at: sparse + 65536)
    model.write(Array(flat[1200 * 512..<(1200 + 128) * 512]), at: sparse + (2048 + 128) * 512)
    return model
  }

  @Test func extentsOfAllKindsLieBehindEachOther() throws {
    try TemporaryFolder.with { folder in
      var model = try Self.makeMixed(in: folder)
      let path = folder.file("disk.vmdk")
      #expect(try ImageOpener.open(path).readAll() == model.bytes)
      var random = SeededRandom(seed: 8)
      do {
        let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
        #expect(chain.top.clusterSize == 65536)
        for _ in 0..<60 {
          // From the flat extent into the sparse one.
          let range = random.range(in: 3072 * 512, most: 200_000, unit: 65536)
          let start = 65536 + range.lowerBound
          if random.oneIn(4) {
            try chain.writeZeros(at: UInt64(start), count: UInt64(range.count))
            model.writeZeros(at: start, count: range.count)
          } else {
            let bytes = random.fill(range.count)
            try chain.writeBytes(bytes, at: UInt64(start))
            model.write(bytes, at: start)
          }
        }
        #expect(try chain.readAll() == model.bytes)
        try chain.writeZeros(at: 0, count: 65536)
        #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 100) }
        #expect(throws: EngineError.self) { try chain.writeBytes([1], at: chain.virtualSize - 1) }
        #expect(throws: EngineError.self) { try chain.writeZeros(at: chain.virtualSize - 1, count: 1) }
        try chain.close()
      }
      #expect(try ImageOpener.open(path).readAll() == model.bytes)
    }
  }

  /// VirtualBox reads whole sectors only, and so each file of extents ends with one, whatever was packed or written last (QEMU's
  /// 51b3c6b73a).
  @Test(arguments: [
    "monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat", "twoGbMaxExtentFlat", "streamOptimized",
  ])
  func filesEndWithAWholeSector(_ subformat: String) throws {
    var random = SeededRandom.fromEnvironment(or: 65)
    try TemporaryFolder.with { folder in
      for round in 0..<Effort.rounds(4) {
        let inner = try folder.makeInner("\(round)")
        var disk = ModelDisk(byteCount: 512 * (1 + random.below(3000)))
        for _ in 0..<4 {
          let range = random.range(in: disk.byteCount, most: 200_000)
          disk.write(
            random.oneIn(2) ? random.fill(range.count) : random.bytes(range.count), at: range.lowerBound)
        }
        try inner.write(disk.bytes, to: "raw")
        for words in [[], ["-c"]] where words.isEmpty || subformat == "streamOptimized" {
          let path = inner.file("image\(words.count).vmdk")
          try BuiltProduct.qemuImg.run(
            ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=\(subformat)"] + words
              + [inner.file("raw"), path]
          ).expecting(0)
          if subformat != "streamOptimized" {
            let chain = try ImageOpener.open(path, OpenOptions(format: "vmdk", access: .readWrite))
            for _ in 0..<5 {
              let range = random.range(in: disk.byteCount, most: 100_000)
              let bytes = random.fill(range.count)
              try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
              disk.write(bytes, at: range.lowerBound)
            }
            try chain.close()
          }
          #expect(try ImageOpener.open(path).readAll() == disk.bytes, "\(random)")
        }
        // A descriptor that stands alone is a text.
        let isText = subformat != "monolithicSparse" && subformat != "streamOptimized"
        let files = try inner.names().filter { $0 != "raw" && !(isText && $0.hasSuffix("image0.vmdk")) }
        #expect(!files.isEmpty)
        for name in files {
          #expect(try Files.read(inner.file(name)).count % 512 == 0, "\(name), \(random)")
        }
      }
    }
  }

  @Test func extentWithoutAccessIsAnErrorForItsOwnRange() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 65536), to: "a")
      let path = try folder.write(
        VMDKImages.descriptor(["RW 128 FLAT \"a\" 0", "NOACCESS 128 FLAT \"a\" 0"]), to: "disk")
      let chain = try ImageOpener.open(path)
      #expect(try chain.readBytes(at: 0, count: 65536) == [UInt8](repeating: 5, count: 65536))
      #expect(throws: EngineError.self) { try chain.readBytes(at: 65536, count: 1) }
    }
  }

  private func withDescriptorLimit(_ count: UInt64, _ body: (TemporaryFolder) throws -> Void) throws {
    var old = rlimit()
    #expect(unsafe getrlimit(CInt(RLIMIT_NOFILE.rawValue), &old) == 0)
    var new = rlimit(rlim_cur: rlim_t(count), rlim_max: old.rlim_max)
    #expect(unsafe setrlimit(CInt(RLIMIT_NOFILE.rawValue), &new) == 0)
    defer { unsafe setrlimit(CInt(RLIMIT_NOFILE.rawValue), &old) }
    try TemporaryFolder.with(body)
  }

  /// More extents than one process may have files open, written and read.
  @Test func manyExtentsNeedFewDescriptors() throws {
    try withDescriptorLimit(1024) { folder in
      let count = 300
      for number in 0..<count { try folder.write([UInt8](repeating: 0, count: 8192), to: "f\(number)") }
      let lines = (0..<count).map { "RW 16 FLAT \"f\($0)\" 0" }
      let path = try folder.write(VMDKImages.descriptor(lines), to: "disk")
      var model = ModelDisk(byteCount: count * 8192)
      do {
        let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
        // All of them can be looked at without being opened.
        #expect(
          chain.members[0].fileStatuses.dropFirst().map(\.byteCount)
            == [UInt64](repeating: 8192, count: count))
        #expect(folder.openFiles().count <= OpenFilePool.maximumOpen + 1)
        let wrong = Threads.run(3) { thread in
          for number in stride(from: thread, to: count, by: 3) {
            let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 8192)
            do { try chain.writeBytes(bytes, at: UInt64(number * 8192)) } catch { return "\(error)" }
          }
          return nil
        }
        #expect(wrong.isEmpty)
        for number in 0..<count {
          model.write([UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 8192), at: number * 8192)
        }
        #expect(folder.openFiles().count <= OpenFilePool.maximumOpen + 1)
        try chain.close()
        #expect(try chain.readAll() == model.bytes)
      }
      #expect(folder.openFiles().isEmpty)
      #expect(try ImageOpener.open(path).readAll() == model.bytes)
    }
  }

  /// 64 TiB in extents of 2 GiB: 32768 files are too many to make here, but their descriptor is read at once.
  @Test func longDescriptorIsReadAtOnce() throws {
    try TemporaryFolder.with { folder in
      let lines = (0..<32_768).map { "RW 4194304 SPARSE \"disk-s\($0).vmdk\"" }
      let path = try folder.write(VMDKImages.descriptor(lines), to: "disk")
      var options = OpenOptions()
      options.isForInspection = true
      try Deadline.within(seconds: 5, "32768 extents") {
        let chain = try ImageOpener.open(path, options)
        #expect(chain.virtualSize == 64 * TiB)
        #expect((chain.top as? any SelfDescribing)?.formatSpecificInfo != nil)
      }
    }
  }

  // MARK: Content ids and parents

  private static func contentID(_ path: String) throws -> String {
    let text = String(decoding: try Files.read(path).prefix(4096), as: UTF8.self)
    let line = try #require(text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("CID=") })
    return String(line)
  }

  @Test func firstChangeOfASessionRenewsTheContentID() throws {
    try TemporaryFolder.with { folder in
      // A long descriptor: nothing of it is cut off, and nothing moves.
      try folder.write([UInt8](repeating: 0, count: 65536), to: "a")
      let lines = ["RW 128 FLAT \"a\" 0"] + (0..<2000).map { "ddb.number\($0) = \"value \($0)\"" }
      let path = try folder.write(VMDKImages.descriptor(lines), to: "disk")
      let before = try Files.read(path)
      do {
        let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
        try chain.flush()
        try chain.close()
      }
      #expect(try Files.read(path) == before)
      do {
        let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
        try chain.writeBytes([1], at: 0)
        let changed = try Self.contentID(path)
        #expect(changed != "CID=deadbee1")
        try chain.writeBytes([2], at: 1)
        try chain.close()
        #expect(try Self.contentID(path) == changed)
      }
      let after = try Files.read(path)
      #expect(after.count == before.count)
      #expect(zip(before, after).count { $0 != $1 } <= 8)
    }
  }

  private static func makeLink(in folder: TemporaryFolder) throws {
    try ReferenceTool.makeBase("base.vmdk", "vmdk", [UInt8](repeating: 3, count: 65536), in: folder)
    try ReferenceTool.qemuImg(
      "create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "link.vmdk", folder: folder.path)
  }

  @Test func linkReadsThroughItsParent() throws {
    try TemporaryFolder.with { folder in
      try Self.makeLink(in: folder)
      let chain = try ImageOpener.open(folder.file("link.vmdk"))
      #expect(chain.members.count == 2)
      #expect(try chain.readAll() == [UInt8](repeating: 3, count: 65536))
    }
  }

  @Test func changedParentIsRefused() throws {
    try TemporaryFolder.with { folder in
      try Self.makeLink(in: folder)
      do {
        let chain = try ImageOpener.open(folder.file("base.vmdk"), OpenOptions(access: .readWrite))
        try chain.writeBytes([4], at: 0)
        try chain.close()
      }
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("link.vmdk")) }
      #expect(error?.message.contains("has changed since") == true)
      let judged = try ReferenceTool.qemuIO.run(["-r", "-c", "read 0 512", "link.vmdk"], folder: folder.path)
      #expect(judged.stdoutText.contains("failed"), "\(judged.stdoutText)")
    }
  }

  @Test func missingParentIsNamedAndCanBeGiven() throws {
    try TemporaryFolder.with { folder in
      try Self.makeLink(in: folder)
      try Files.write(try Files.read(folder.file("base.vmdk")), to: folder.file("moved.vmdk"))
      try Files.write(Array("no image".utf8), to: folder.file("other.vmdk"))
      try FileManager.default.removeItem(atPath: folder.file("base.vmdk"))
      let path = folder.file("link.vmdk")
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
      #expect(error?.message.contains("'base.vmdk'") == true)
      #expect(error?.message.contains("backing.file.filename") == true)
      func given(_ name: String) -> ImageSpecification {
        let backing = "backing.driver=vmdk,backing.file.filename=\(folder.file(name))"
        return ImageSpecification(options: "driver=vmdk,file.filename=\(path),\(backing)")
      }
      #expect(try ImageOpener.open(given("moved.vmdk")).readBytes(at: 0, count: 2) == [3, 3])
      #expect(throws: EngineError.self) { try ImageOpener.open(given("other.vmdk")) }
      #expect(throws: EngineError.self) { try ImageOpener.open(given("link.vmdk")) }
    }
  }

  /// The hint is a path of another host or system: a file of that name beside the link is taken, if it is the parent.
  @Test(arguments: ["C:\\VMs\\base.vmdk", "/nowhere/at all/base.vmdk"])
  func parentIsFoundBesideTheLink(_ hint: String) throws {
    try TemporaryFolder.with { folder in
      try Self.makeLink(in: folder)
      var bytes = try Files.read(folder.file("link.vmdk"))
      var text = String(decoding: bytes[512..<512 + 2048], as: UTF8.self)
      text = text.replacing("\"base.vmdk\"", with: "\"\(hint)\"")
      let new = Array(Array(text.utf8).prefix(2048))
      bytes.replaceSubrange(512..<512 + 2048, with: new)
      try Files.write(bytes, to: folder.file("link.vmdk"))
      let chain = try ImageOpener.open(folder.file("link.vmdk"))
      #expect(try chain.readBytes(at: 100, count: 2) == [3, 3])
    }
  }

  // MARK: Files by options

  @Test func movedExtentIsGivenByItsNumber() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 6, count: 65536), to: "here")
      let path = try folder.write(VMDKImages.descriptor(["RW 128 FLAT \"gone\" 0"]), to: "disk")
      #expect(throws: EngineError.self) { try ImageOpener.open(path) }
      let name = "driver=vmdk,file.filename=\(path),extents.0.filename=\(folder.file("here"))"
      let chain = try ImageOpener.open(ImageSpecification(options: name))
      #expect(try chain.readAll() == [UInt8](repeating: 6, count: 65536))
      for wrong in ["extents.1", "extents.x", "extents.00", "extents"] {
        let name = "driver=vmdk,file.filename=\(path),\(wrong).filename=\(folder.file("here"))"
        #expect(throws: EngineError.self, "\(wrong)") {
          try ImageOpener.open(ImageSpecification(options: name))
        }
      }
    }
  }
}
