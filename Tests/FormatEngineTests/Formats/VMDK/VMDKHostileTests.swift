import Foundation
import TestSupport
import Testing

@testable import FormatEngine

/// VMDK images that are made to do harm. Docs/HOSTILE-INPUTS.md has the list that these tests go by.
@Suite struct VMDKHostileTests {
  /// What an image may name instead of an extent or a parent.
  private static let traps = [
    "fifo", "/dev/zero", "/dev/null", "/", "missing", "json:{\"driver\":\"file\",\"filename\":\"secret\"}",
    "nbd://localhost/x", "fuse:x", "secret", "../../../../../../etc/passwd",
  ]

  private static func makeTraps(in folder: TemporaryFolder) throws {
    try TestProcess.run(["/usr/bin/mkfifo", folder.file("fifo")]).expecting(0)
    try folder.write(Array("secret".utf8), to: "secret")
  }

  private static func descriptor(_ name: String, _ kind: String) -> [UInt8] {
    switch kind {
    case "parent": VMDKImages.descriptor(["RW 8 ZERO"], parent: "12345678", hint: name)
    case "FLAT": VMDKImages.descriptor(["RW 8 FLAT \"\(name.filter { $0 != "\"" })\" 0"])
    default: VMDKImages.descriptor(["RW 8 \(kind) \"\(name.filter { $0 != "\"" })\""])
    }
  }

  /// Explaining an image opens the image and nothing else, and at once (CVE-2024-4467).
  @Test(arguments: traps, ["FLAT", "SPARSE", "parent"])
  func explainingAnImageOpensNoFileThatItNames(_ name: String, _ kind: String) throws {
    try TemporaryFolder.with { folder in
      try Self.makeTraps(in: folder)
      let path = try folder.write(Self.descriptor(name, kind), to: "image")
      try Deadline.within(seconds: 10, "\(kind) \(name)") {
        var options = OpenOptions(format: "vmdk")
        options.isForInspection = true
        options.backing = .ignore
        if let chain = try? ImageOpener.open(path, options) {
          _ = (chain.top as? any SelfDescribing)?.formatSpecificInfo
          _ = (chain.top as? any SelfDescribing)?.extraFiles
          #expect(folder.openFiles() == [path])
          #expect(kind == "parent" || (try? chain.readBytes(at: 0, count: 1)) == nil)
        }
        for verb in [["info"], ["check"], ["info", "--backing-chain"], ["map"]] {
          let result = try BuiltProduct.qemuImg.run(verb + [path], folder: folder.path, timeout: 10)
          #expect(!result.stdoutText.isEmpty || !result.stderrText.isEmpty)
        }
      }
    }
  }

  /// Files outside of the allowed folders are not opened, whatever way leads there (CVE-2024-32498).
  @Test(arguments: ["/etc/passwd", "../secret", "link"], ["FLAT", "SPARSE", "VMFS", "parent"])
  func extentsAndParentsStayInTheirFolder(_ name: String, _ kind: String) throws {
    try TemporaryFolder.with { outer in
      let inner = try outer.makeFolder("inner")
      try outer.write([UInt8](repeating: 1, count: 4096), to: "secret")
      try FileManager.default.createSymbolicLink(
        atPath: "\(inner)/link", withDestinationPath: outer.file("secret"))
      let path = try outer.write(Self.descriptor(name, kind), to: "inner/image")
      var options = OpenOptions(format: "vmdk")
      options.policy = ReferencePolicy(.folders([try AllowedFolder(inner)]))
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(path, options) }
      #expect(error?.code == .forbidden, "\(String(describing: error))")
    }
  }

  @Test func parentsThatLeadBackAreALoop() throws {
    try TemporaryFolder.with { folder in
      for (name, other) in [("a", "b"), ("b", "a")] {
        try folder.write(VMDKImages.descriptor(["RW 8 ZERO"], parent: "deadbee1", hint: other), to: name)
      }
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("a")) }
      #expect(error?.message.contains("loop") == true)
      try folder.write(VMDKImages.descriptor(["RW 8 ZERO"], parent: "deadbee1", hint: "a"), to: "a")
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("a")) }
    }
  }

  /// A parent's id without a name: what lies below is not simply zeros.
  @Test func parentWithoutANameIsMissed() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(VMDKImages.descriptor(["RW 8 ZERO"], parent: "deadbee1"), to: "a")
      #expect(throws: EngineError.self) { try ImageOpener.open(path) }
    }
  }

  /// 1 MiB of extent lines, with and without a line end, for a file that is there.
  @Test func mebibyteOfExtentLinesIsReadOrRefusedAtOnce() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 1, count: 512), to: "a")
      for line in ["RW 1 FLAT \"a\" 0", "RW 1 ZERO", "RW 36028797018963967 ZERO", "RW 0 SPARSE \"a\"", "RW"] {
        var bytes = VMDKImages.descriptor(Array(repeating: line, count: Int(MiB) / (line.utf8.count + 1)))
        for _ in 0..<2 {
          let path = try folder.write(bytes, to: "image")
          Deadline.within(seconds: 20, line) {
            guard let chain = try? ImageOpener.open(path), chain.virtualSize > 512 else { return }
            _ = try? chain.readBytes(at: 0, count: 512)
            _ = try? chain.readBytes(at: chain.virtualSize - 512, count: 512)
            _ = try? chain.extent(at: 0, limit: chain.virtualSize)
          }
          bytes.removeLast()
        }
      }
    }
  }

  /// One file for two extents, or the descriptor itself as one: writes would destroy what others wrote.
  @Test func fileThatIsUsedTwiceIsNotWritten() throws {
    try TemporaryFolder.with { folder in
      try folder.write(try VMDKImages.sparse(), to: "s")
      for lines in [
        ["RW 2048 SPARSE \"s\"", "RW 2048 SPARSE \"./s\""], ["RW 2048 SPARSE \"s\"", "RW 128 FLAT \"s\" 0"],
        ["RW 128 FLAT \"s\" 0", "RW 2048 SPARSE \"s\""],
        ["RW 1 FLAT \"image\" 0"],
      ] {
        let bytes = VMDKImages.descriptor(lines)
        let path = try folder.write(bytes, to: "image")
        #expect(throws: EngineError.self) { try ImageOpener.open(path, OpenOptions(access: .readWrite)) }
        #expect(try Files.read(path) == bytes)
        _ = try ImageOpener.open(path).readBytes(at: 0, count: 512)
      }
    }
  }

  @Test func hugeDescriptorIsRefused() throws {
    let head = VMDKImages.descriptor(["RW 8 ZERO"])
    let most = head + [UInt8](repeating: 0x0a, count: VMDKDescriptor.maximumByteCount - head.count)
    _ = try VMDKImages.open(most)
    #expect(throws: EngineError.self) { try VMDKImages.open(most + [0x0a]) }
    #expect(throws: EngineError.self) { try VMDKImages.open([]) }
    #expect(throws: EngineError.self) { try VMDKImages.open([1, 2, 3]) }
  }

  // MARK: Packed grains

  private static func stream() throws -> [UInt8] {
    try TemporaryFolder.with { folder in
      var disk = [UInt8](repeating: 0, count: 300_032)
      for index in 0..<200_000 { disk[index] = UInt8(truncatingIfNeeded: index / 7) }
      try folder.write(disk, to: "disk")
      try ReferenceTool.qemuImg(
        "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk", "image", folder: folder.path)
      return try Files.read(folder.file("image"))
    }
  }

  private static func grainOffset(_ bytes: [UInt8]) -> Int {
    Int(VMDKImages.number(bytes, at: VMDKImages.table(bytes, copy: 0), width: 4)) * 512
  }

  @Test func packedGrainOfAnyLengthIsReadOrRefused() throws {
    let good = try Self.stream()
    let content = try VMDKImages.open(good).0.readAll()
    let grain = Self.grainOffset(good)
    for length in [0, 1, 2, 11, 65536, 131_072, 131_073, 131_584, 131_585, 0x7fff_ffff, 0xffff_ffff]
      as [UInt64]
    {
      var bytes = good
      VMDKImages.put(length, into: &bytes, at: grain + 8, width: 4)
      let (chain, _) = try VMDKImages.open(bytes)
      if let first = try? chain.readBytes(at: 0, count: 65536) { #expect(first == Array(content[..<65536])) }
      #expect(try chain.readBytes(at: 65536, count: 65536) == Array(content[65536..<131_072]))
    }
    for place in [grain + 12, grain + 40, grain + 200] {
      var bytes = good
      bytes[place] ^= 0x55
      #expect(throws: EngineError.self) { try VMDKImages.open(bytes).0.readBytes(at: 0, count: 1) }
    }
  }

  /// A grain that unpacks to more than a grain.
  @Test func packedBombUnpacksToNothing() throws {
    var bytes = try Self.stream()
    let grain = Self.grainOffset(bytes)
    let bomb = try TestProcess.run([
      "/usr/bin/python3", "-c",
      "import sys,zlib; sys.stdout.buffer.write(zlib.compress(bytes(50_000_000)))",
    ]).expecting(0).stdout
    bytes.append(contentsOf: [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512))
    let place = bytes.count
    bytes.append(contentsOf: Array(bytes[grain..<grain + 12]) + bomb)
    bytes.append(contentsOf: [UInt8](repeating: 0, count: 512))
    VMDKImages.put(UInt64(bomb.count), into: &bytes, at: place + 8, width: 4)
    VMDKImages.put(UInt64(place / 512), into: &bytes, at: VMDKImages.table(bytes, copy: 0), width: 4)
    #expect(throws: EngineError.self) { try VMDKImages.open(bytes).0.readBytes(at: 0, count: 1) }
  }

  /// A stream: no directory before its end, where a second header and two markers are.
  @Test func footerIsFoundOrTheFileIsIncomplete() throws {
    var good = try Self.stream()
    let content = try VMDKImages.open(good).0.readAll()
    let header = Array(good[..<512])
    good.append(contentsOf: [UInt8](repeating: 0, count: (512 - good.count % 512) % 512))
    VMDKImages.put(UInt64.max, into: &good, at: 56, width: 8)
    var marker = [UInt8](repeating: 0, count: 512)
    VMDKImages.put(1, into: &marker, at: 0, width: 8)
    VMDKImages.put(3, into: &marker, at: 12, width: 4)
    let whole = good + marker + header + [UInt8](repeating: 0, count: 512)
    #expect(try VMDKImages.open(whole).0.readAll() == content)
    #expect(throws: EngineError.self) { try VMDKImages.open(good) }
    for cut in [1, 512, 513, 1024, 1536] {
      #expect(throws: EngineError.self, "\(cut)") { try VMDKImages.open(Array(whole.dropLast(cut))) }
    }
    for (place, value) in [(1536, 9), (1524, 2), (1528, 1), (1024, 0), (512, 7)] {
      var bytes = whole
      bytes[bytes.count - place] = UInt8(value)
      _ = try? VMDKImages.open(bytes).0.readAll()
    }
    // The footer sends on to a footer.
    let again = good + marker + Array(good[..<512]) + [UInt8](repeating: 0, count: 512)
    #expect(throws: EngineError.self) { try VMDKImages.open(again) }
  }

  // MARK: Grains that are not where they should be

  /// Letting go of such a grain would make a hole of the tables.
  @Test func grainInTheTablesIsNotLetGoOf() throws {
    var bytes = try VMDKImages.sparse()
    for copy in [0, 1] {
      let directory = VMDKImages.number(bytes, at: 56, width: 8)
      VMDKImages.put(directory, into: &bytes, at: VMDKImages.table(bytes, copy: copy), width: 4)
    }
    let metadataEnd = Int(VMDKImages.number(bytes, at: 64, width: 8)) * 512
    let (chain, store) = try VMDKImages.open(bytes, .readWrite)
    #expect(throws: EngineError.self) { try chain.discard(at: 0, count: 65536) }
    #expect(throws: EngineError.self) { try chain.writeZeros(at: 0, count: 65536) }
    try chain.flush()
    // The content id alone, in the descriptor, is another one.
    #expect(store.snapshot[20 * 512..<metadataEnd].elementsEqual(bytes[20 * 512..<metadataEnd]))
  }

  /// The file ends inside of a grain that begins anywhere: what of it is missing would lie where new grains go.
  @Test func cutOffGrainDoesNotOverwriteNewOnes() throws {
    var bytes = try VMDKImages.sparse()
    for copy in [0, 1] {
      let table = VMDKImages.table(bytes, copy: copy)
      VMDKImages.put(UInt64(bytes.count / 512 - 1), into: &bytes, at: table + 4 * 9, width: 4)
    }
    let (chain, _) = try VMDKImages.open(bytes, .readWrite)
    let new = [UInt8](repeating: 77, count: VMDKImages.grain)
    try chain.writeBytes(new, at: UInt64(7 * VMDKImages.grain))
    #expect(throws: EngineError.self) {
      try chain.writeBytes([UInt8](repeating: 1, count: 8192), at: UInt64(9 * VMDKImages.grain))
    }
    #expect(throws: EngineError.self) {
      try chain.discard(at: UInt64(9 * VMDKImages.grain), count: UInt64(VMDKImages.grain))
    }
    #expect(try chain.readBytes(at: UInt64(7 * VMDKImages.grain), count: VMDKImages.grain) == new)
  }

  /// The last grain of a packed extent ends with it, also where the disk goes on.
  @Test func packedExtentMayHaveOthersBehindIt() throws {
    try TemporaryFolder.with { folder in
      let stream = try Self.stream()
      // Two grains, and a part of the third.
      let content = Array(try VMDKImages.open(stream).0.readAll().prefix(300 * 512))
      try folder.write(stream, to: "s")
      let lines = ["RW 300 SPARSE \"s\"", "RW 8 ZERO"]
      let chain = try ImageOpener.open(try folder.write(VMDKImages.descriptor(lines), to: "image"))
      #expect(try chain.readAll() == content + [UInt8](repeating: 0, count: 4096))
      #expect(try chain.readBytes(at: 140_000, count: 300) == Array(content[140_000..<140_300]))
      let last = content.count - 512
      #expect(
        try chain.readBytes(at: UInt64(last), count: 1024) == content[last...]
          + [UInt8](repeating: 0, count: 512))
    }
  }
}
