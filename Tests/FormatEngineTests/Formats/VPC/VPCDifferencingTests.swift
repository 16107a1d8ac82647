import TestSupport
import Testing

@testable import FormatEngine

/// Disks over parents: which file it is, and whose bytes are read.
struct VPCDifferencingTests {
  private static let byteCount = 300 * 1024

  /// A folder with `child.vhd` over `base.vhd`, and what the child reads like.
  private func withPair(
    _ change: (inout VPCImage) -> Void = { _ in }, _ body: (TemporaryFolder, BuiltImage) throws -> Void
  ) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 61)
      var image = VPCImage(isDifferencing: true)
      change(&image)
      let built = try image.build(byteCount: Self.byteCount, &random)
      try folder.write(built.file, to: "child.vhd")
      try folder.write(try #require(built.others["base.vhd"]), to: "base.vhd")
      try body(folder, built)
    }
  }

  private func open(_ name: String, in folder: TemporaryFolder) throws(EngineError) -> ImageChain {
    try ImageOpener.open(folder.file(name))
  }

  @Test func sectorsComeFromTheDiskThatHasThem() throws {
    try withPair { folder, built in
      let chain = try open("child.vhd", in: folder)
      #expect(chain.members.count == 2)
      #expect(ModelDisk.firstDifference(try chain.readAll(), built.disk) == nil)
    }
  }

  /// The relative path goes first, then the absolute one, then the name beside the disk; Windows' separators too.
  @Test func parentIsFoundByEachOfItsPaths() throws {
    try withPair({ $0.relativeParent = ".\\sub\\base.vhd" }) { folder, built in
      // By its name alone.
      #expect(try open("child.vhd", in: folder).readAll() == built.disk)
      _ = try folder.makeFolder("sub")
      try folder.write(
        VPCImage().fixed(built.below ?? [], id: .init(repeating: 9, count: 16)), to: "sub/base.vhd")
      // Where the relative path leads another disk stands.
      let error = #expect(throws: EngineError.self) { try open("child.vhd", in: folder) }
      #expect(error?.message.contains("unique id") == true)
    }
    try TemporaryFolder.with { other in
      try withPair({
        $0.relativeParent = ""
        $0.absoluteParent = other.file("base.vhd").replacing("/", with: "\\")
      }) { folder, built in
        try other.write(try Files.read(folder.file("base.vhd")), to: "base.vhd")
        try folder.write([], to: "base.vhd")
        #expect(try open("child.vhd", in: folder).readAll() == built.disk)
      }
    }
  }

  /// It is never read as if there were no parent; its own bytes can be had on request.
  @Test func missingParentIsNamed() throws {
    try withPair({ $0.absoluteParent = "C:\\disks\\base.vhd" }) { folder, built in
      try folder.write(try Files.read(folder.file("base.vhd")), to: "elsewhere.vhd")
      HostFiles.remove(folder.file("base.vhd"))
      let error = #expect(throws: EngineError.self) { try open("child.vhd", in: folder) }
      #expect(error?.code == .notFound)
      #expect(error?.message.contains("'C:\\disks\\base.vhd'") == true)
      #expect(error?.message.contains("backing.file.filename") == true)
      let path = folder.file("child.vhd")
      let given =
        "json:{\"file.filename\":\"\(path)\",\"backing.file.filename\":\"\(folder.file("elsewhere.vhd"))\"}"
      #expect(throws: EngineError.self) { try ImageOpener.open(given) }
      let whole =
        "json:{\"driver\":\"vpc\",\"file.filename\":\"\(path)\","
        + "\"backing.driver\":\"vpc\",\"backing.file.filename\":\"\(folder.file("elsewhere.vhd"))\"}"
      #expect(try ImageOpener.open(whole).readAll() == built.disk)
      let alone = "json:{\"driver\":\"vpc\",\"file.filename\":\"\(path)\",\"backing\":null}"
      let own = try ImageOpener.open(alone)
      #expect(own.members.count == 1)
      for (start, found) in try own.allExtents() where found.extent.source == .stored {
        let range = Int(start)..<Int(start + found.extent.length)
        #expect(try own.readBytes(at: start, count: range.count) == Array(built.disk[range]))
      }
      #expect(try own.allExtents().contains { $0.located.extent.source == .stored })
    }
  }

  /// Only a VHD with the recorded id is the parent.
  @Test func otherDisksAreNoParent() throws {
    try withPair { folder, built in
      try folder.write(
        VPCImage().fixed(built.below ?? [], id: .init(repeating: 3, count: 16)), to: "base.vhd")
      #expect(throws: EngineError.self) { try open("child.vhd", in: folder) }
      try folder.write(built.below ?? [], to: "base.raw")
      let raw =
        "json:{\"driver\":\"vpc\",\"file.filename\":\"\(folder.file("child.vhd"))\","
        + "\"backing.driver\":\"raw\",\"backing.file.filename\":\"\(folder.file("base.raw"))\"}"
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(raw) }
      #expect(error?.message.contains("must be a VHD") == true)
    }
  }

  /// Names that an image gives pass the policy, whatever separators they have.
  @Test(arguments: ["..\\..\\secret.vhd", "\\etc\\passwd", "C:\\x.vhd", "\\\\server\\share\\x.vhd"])
  func policyDecidesOnTheParent(_ path: String) throws {
    try withPair({ $0.relativeParent = path }) { folder, _ in
      let file = try FileStore.open(folder.file("child.vhd"), access: .readOnly)
      let layer = try VPCFormat.open(
        file,
        LayerRequest(path: folder.file("child.vhd"), access: .readOnly, references: ReferenceOpener()))
      #expect(layer.backing?.format == "vpc")
      var options = OpenOptions()
      options.policy = ReferencePolicy(.nowhere)
      try folder.write([1], to: "passwd")
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("child.vhd"), options) }
    }
  }

  /// Three disks deep, made by us, written at random, each as the model.
  @Test func chainOfNewDisksEqualsTheModel() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 62)
      let size = 5 * 1024 * 1024
      var model = ModelDisk(byteCount: size)
      var models: [ModelDisk] = []
      for level in 0..<3 {
        var options = OptionValues(ImageCreator.options(of: VPCFormat.self))
        options.set("size", to: .number(UInt64(size)))
        options.set("force_size", to: .flag(true))
        if level > 0 {
          options.set("backing_file", to: .text("disk\(level - 1).vhd"))
          options.set("backing_fmt", to: .text("vpc"))
        }
        let path = folder.file("disk\(level).vhd")
        _ = try ImageCreator.create(path, format: VPCFormat.self, options: options)
        let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
        for _ in 0..<12 {
          let range = random.range(in: size, most: 200_000, unit: 4096)
          if random.oneIn(4) {
            try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
            model.writeZeros(at: range.lowerBound, count: range.count)
          } else {
            let bytes = random.bytes(range.count)
            try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
            model.write(bytes, at: range.lowerBound)
          }
        }
        try chain.close()
        models.append(model)
      }
      for level in 0..<3 {
        let chain = try open("disk\(level).vhd", in: folder)
        #expect(chain.members.count == level + 1)
        #expect(ModelDisk.firstDifference(try chain.readAll(), models[level].bytes) == nil)
        #expect(try (chain.top as? any Checkable)?.check(progress: .none).findings == [])
      }
      try commitTheTop(of: folder, models)
    }
  }

  /// The base has what the top had, and the top is empty.
  private func commitTheTop(of folder: TemporaryFolder, _ models: [ModelDisk]) throws {
    let chain = try ImageOpener.open(folder.file("disk2.vhd"), OpenOptions(access: .readWrite))
    let emptyable = try #require(chain.top as? any Emptyable)
    try emptyable.removeContent(progress: .none)
    #expect(ModelDisk.firstDifference(try chain.readAll(), models[1].bytes) == nil)
    #expect(try Files.read(folder.file("disk2.vhd")).count < 20_000)
  }

  @Test func newDiskNeedsAParentThatIsAVHD() throws {
    try TemporaryFolder.with { folder in
      func create(_ backing: String, _ format: String, subformat: String? = nil) throws(EngineError) {
        var options = OptionValues(ImageCreator.options(of: VPCFormat.self))
        options.set("size", to: .number(1 << 20))
        options.set("backing_file", to: .text(backing))
        options.set("backing_fmt", to: .text(format))
        if let subformat { options.set("subformat", to: .text(subformat)) }
        _ = try ImageCreator.create(folder.file("new.vhd"), format: VPCFormat.self, options: options)
      }
      try folder.write([UInt8](repeating: 0, count: 1 << 20), to: "base.raw")
      #expect(throws: EngineError.self) { try create("base.raw", "raw") }
      #expect(throws: EngineError.self) { try create("base.raw", "vpc") }
      #expect(throws: EngineError.self) { try create("missing.vhd", "vpc") }
      #expect(throws: EngineError.self) { try create("a\\b.vhd", "vpc") }
      try folder.write(VPCImage().empty(byteCount: 1 << 20), to: "base.vhd")
      #expect(throws: EngineError.self) { try create("base.vhd", "vpc", subformat: "fixed") }
      #expect(try !folder.names().contains("new.vhd"))
      try create("base.vhd", "vpc")
      #expect(try open("new.vhd", in: folder).members.count == 2)
    }
  }
}
