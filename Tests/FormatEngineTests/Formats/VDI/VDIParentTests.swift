import FormatEngine
import TestSupport
import Testing

/// Differencing images, and how their parents are found.
@Suite struct VDIParentTests {
  /// Blocks 0 and 1 hold 1 and 2, the third is zeros.
  private static let base = VDIBytes(entries: [0, 1, VDIBytes.zeros], id: 0xa1)
  /// Block 0 is the parent's, block 1 zeros, block 2 is 9.
  private static func child(_ type: UInt32 = 4, id: UInt8 = 0xb1, of parent: UInt8 = 0xa1, change: UInt8 = 0)
    -> VDIBytes
  {
    VDIBytes(
      type: type, entries: [VDIBytes.free, VDIBytes.zeros, 0], fill: 9, id: id, parent: parent,
      parentChange: change)
  }
  private static let merged = [1, 0, 9].flatMap { [UInt8](repeating: $0, count: 4096) }

  private static func expectMerged(_ path: String, _ change: (inout OpenOptions) -> Void = { _ in }) throws {
    var options = OpenOptions()
    change(&options)
    let chain = try ImageOpener.open(path, options)
    #expect(chain.members.count == 2)
    #expect(try chain.readAll() == merged)
  }

  /// Where the files lie, relative to a folder: the child, then the parent.
  @Test(
    arguments: [
      ("child.vdi", "base.vdi"), ("Snapshots/child.vdi", "base.vdi"),
      ("child.vdi", "{a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1}.vdi"),
      ("Snapshots/child.vdi", "Snapshots/BASE.VDI"),
      ("child", "base.vdi"), ("a:b.vdi", "c:d.vdi"),
    ], [3, 4] as [UInt32])
  func parentIsFoundByItsUUID(_ names: (String, String), _ type: UInt32) throws {
    try TemporaryFolder.with { folder in
      _ = try folder.makeFolder("Snapshots")
      // Others that are not meant, or are no images at all.
      try folder.write(VDIBytes(entries: [0], id: 0xc1).bytes, to: "another.vdi")
      try folder.write([1, 2, 3], to: "a.vdi")
      try folder.write(Self.base.bytes, to: names.1)
      try folder.write(Self.child(type).bytes, to: names.0)
      try Self.expectMerged(folder.file(names.0))
    }
  }

  @Test func settingsOfTheMachineNameTheParent() throws {
    try TemporaryFolder.with { folder in
      _ = try folder.makeFolder("machine")
      _ = try folder.makeFolder("machine/Snapshots")
      _ = try folder.makeFolder("disks")
      try folder.write(Self.base.bytes, to: "disks/first disk")
      try folder.write(Self.child().bytes, to: "machine/Snapshots/child.vdi")
      let settings = """
        <?xml version="1.0"?><VirtualBox xmlns="http://www.virtualbox.org/" version="1.16-linux"><Machine>
        <MediaRegistry><HardDisks><HardDisk uuid="{A1A1A1A1-a1a1-a1a1-a1a1-a1a1a1a1a1a1}" location="LOCATION" format="VDI">
        <HardDisk uuid="\(VDIBytes.text(0xb1))" location="Snapshots/child.vdi" format="VDI"/></HardDisk>
        </HardDisks></MediaRegistry></Machine></VirtualBox>
        """
      for location in ["../disks/first disk", folder.file("disks/first disk")] {
        let text = settings.split(separator: "LOCATION")
        try folder.write(Array("\(text[0])\(location)\(text[1])".utf8), to: "machine/machine.vbox")
        try Self.expectMerged(folder.file("machine/Snapshots/child.vdi"))
      }
      // The name alone is no proof.
      try folder.write(VDIBytes(entries: [0], id: 0xc1).bytes, to: "disks/first disk")
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("machine/Snapshots/child.vdi")) }
    }
  }

  @Test(arguments: ["<VirtualBox>", "<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>", "", "\u{0}"])
  func settingsThatCannotBeReadAreNone(_ text: String) throws {
    try TemporaryFolder.with { folder in
      try folder.write(Array(text.utf8), to: "machine.vbox")
      try folder.write(Self.base.bytes, to: "base.vdi")
      try folder.write(Self.child().bytes, to: "child.vdi")
      try Self.expectMerged(folder.file("child.vdi"))
    }
  }

  @Test func missingParentIsAnErrorThatSaysWhatToDo() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
      #expect(error?.message.contains(VDIBytes.text(0xa1)) == true, "\(error?.message ?? "")")
      #expect(error?.message.contains("backing.file.filename") == true)
      _ = try folder.makeFolder("elsewhere")
      let base = try folder.write(Self.base.bytes, to: "elsewhere/base")
      try Self.expectMerged(path) { $0.layerOptions["backing.file.filename"] = base }
      // For those who look at this file only.
      var alone = OpenOptions()
      alone.backing = .ignore
      #expect(try ImageOpener.open(path, alone).readBytes(at: 0, count: 4096).isZero)
    }
  }

  @Test func wrongParentIsRefused() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      let other = try folder.write(VDIBytes(entries: [0], id: 0xc1).bytes, to: "other.vdi")
      let plain = try folder.write([UInt8](repeating: 0, count: 4096), to: "plain.raw")
      for (name, words) in [(other, VDIBytes.text(0xc1)), (plain, "must be a VDI image")] {
        var options = OpenOptions()
        options.layerOptions["backing.file.filename"] = name
        let error = #expect(throws: EngineError.self) { try ImageOpener.open(path, options) }
        #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
        // An image that is no differencing one lies over nothing.
        #expect(throws: EngineError.self) { try ImageOpener.open(other, options) }
      }
    }
  }

  @Test func changedParentIsToldOf() throws {
    try TemporaryFolder.with { folder in
      try folder.write(Self.base.bytes, to: "base.vdi")
      for (change, isTold): (UInt8, Bool) in [(0, false), (0xa2, false), (0xa3, true)] {
        let path = try folder.write(Self.child(change: change).bytes, to: "child.vdi")
        let told = Told()
        try Self.expectMerged(path) { options in options.note = { told.add($0) } }
        #expect(told.lines.isEmpty != isTold, "\(told.lines)")
      }
    }
  }

  private final class Told: Sendable {
    private let all = Guarded<[String]>([])
    func add(_ line: String) { all.withLock { $0.append(line) } }
    var lines: [String] { all.withLock { $0 } }
  }

  /// Itself, or one that lies over it.
  @Test func loopsAreFound() throws {
    try TemporaryFolder.with { folder in
      let own = try folder.write(Self.child(id: 0xa1).bytes, to: "own.vdi")
      #expect(throws: EngineError.self) { try ImageOpener.open(own) }
      try folder.write(Self.child(id: 0xa1, of: 0xb1).bytes, to: "own.vdi")
      try folder.write(Self.child(id: 0xb1, of: 0xa1).bytes, to: "two.vdi")
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(own) }
      #expect(error?.message.contains("loop") == true, "\(error?.message ?? "")")
    }
  }

  @Test func longChainsAreFollowed() throws {
    try TemporaryFolder.with { folder in
      _ = try folder.makeFolder("Snapshots")
      try folder.write(Self.base.bytes, to: "base.vdi")
      for level: UInt8 in 1...20 {
        let parent = level == 1 ? 0xa1 : level - 1
        let image = VDIBytes(
          type: 4, entries: [VDIBytes.free, VDIBytes.free, VDIBytes.free], id: level, parent: parent)
        try folder.write(image.bytes, to: "Snapshots/\(VDIBytes.text(level)).vdi")
      }
      let chain = try ImageOpener.open(folder.file("Snapshots/\(VDIBytes.text(20)).vdi"))
      #expect(chain.members.count == 21)
      #expect(try chain.readAll() == [1, 2, 0].flatMap { [UInt8](repeating: $0, count: 4096) })
    }
  }

  // MARK: What may be opened

  @Test func policyGuardsTheSearch() throws {
    try TemporaryFolder.with { folder in
      let inner = try folder.makeFolder("inner")
      try folder.write(Self.base.bytes, to: "base.vdi")
      let path = try folder.write(Self.child().bytes, to: "inner/child.vdi")
      try Self.expectMerged(path)
      for policy in [ReferencePolicy(.nowhere), ReferencePolicy(.folders([try AllowedFolder(inner)]))] {
        #expect(throws: EngineError.self) { try Self.expectMerged(path) { $0.policy = policy } }
        // Nor by a link that leads out of the folder.
        try TestProcess.run(["/bin/ln", "-sf", "../base.vdi", folder.file("inner/link.vdi")]).expecting(0)
        #expect(throws: EngineError.self) { try Self.expectMerged(path) { $0.policy = policy } }
      }
      let allowed = try AllowedFolder(folder.path)
      try Self.expectMerged(path) { $0.policy = ReferencePolicy(.folders([allowed])) }
    }
  }

  /// Pipes, folders and devices with such names are not even opened, settings of a size that no machine has neither.
  @Test func onlyRegularFilesAreLookedAt() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      try TestProcess.run(
        [
          "/bin/sh", "-c",
          "mkfifo a.vdi a.vbox \"$0\"; ln -s /dev/zero b.vdi; ln -s b.vbox b.vbox",
          "\(VDIBytes.text(0xa1)).vdi",
        ], folder: folder.path
      ).expecting(0)
      _ = try folder.makeFolder("c.vdi")
      Deadline.within(seconds: 5, "search") {
        _ = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
      }
      try folder.write(Self.base.bytes, to: "z.vdi")
      try Deadline.within(seconds: 5, "search") { try Self.expectMerged(path) }
    }
  }

  @Test func searchEndsInALargeFolder() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      for number in 0..<ReferenceOpener.maximumListedNames { try folder.write([], to: "\(number).vdi") }
      let names = ReferenceOpener().names(inFolder: ".", endingIn: [".vdi"], for: .parent, namedBy: path)
      #expect(names.count <= ReferenceOpener.maximumListedNames)
      Deadline.within(seconds: 20, "search") {
        _ = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
      }
    }
  }

  /// `info` and `check` of the image alone look at no other file.
  @Test func explainingAnImageSearchesNothing() throws {
    try TemporaryFolder.with { folder in
      try folder.write(Self.base.bytes, to: "base.vdi")
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      var options = OpenOptions()
      options.isForInspection = true
      options.backing = .ignore
      let layer = try ImageOpener.open(path, options).top
      #expect(layer.backing == BackingReference(name: VDIBytes.text(0xa1), format: "vdi", candidates: []))
      options.searchesForParents = true
      #expect(try ImageOpener.open(path, options).top.backing?.candidates == ["base.vdi"])
    }
  }

  // MARK: Making and changing

  @Test func madeDifferencingImageFindsItsParent() throws {
    try TemporaryFolder.with { folder in
      let base = try folder.write(Self.base.bytes, to: "base.vdi")
      let path = folder.file("child.vdi")
      var options = OptionValues(ImageCreator.options(of: VDIFormat.self))
      options.set("backing_file", to: .text("base.vdi"))
      options.set("backing_fmt", to: .text("vdi"))
      try ImageCreator.resolve(&options, for: path, opening: true)
      _ = try ImageCreator.create(path, format: VDIFormat.self, options: options)
      let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
      #expect(chain.virtualSize == 3 * 4096 && chain.members.count == 2)
      var model = ModelDisk(try ImageOpener.open(base).readAll())
      #expect(try chain.readAll() == model.bytes)
      model.write([5, 6], at: 4095)
      try chain.writeBytes([5, 6], at: 4095)
      try chain.writeZeros(at: 100, count: 50)
      model.writeZeros(at: 100, count: 50)
      try chain.close()
      #expect(try ImageOpener.open(path).readAll() == model.bytes)
      #expect(try Files.read(base) == Self.base.bytes)
    }
  }

  @Test func onlyAVDIImageCanBeAParent() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 7, count: 4096), to: "base.raw")
      var options = OptionValues(ImageCreator.options(of: VDIFormat.self))
      options.set("backing_file", to: .text("base.raw"))
      for format in ["raw", "vdi"] {
        options.set("backing_fmt", to: .text(format))
        options.set("size", to: .number(4096))
        #expect(throws: EngineError.self) {
          try ImageCreator.create(folder.file("child.vdi"), format: VDIFormat.self, options: options)
        }
        #expect(!Files.exists(folder.file("child.vdi")))
      }
    }
  }

  /// What is let go of must not read as what the parent has.
  @Test func zerosAndDiscardsHideTheParent() throws {
    try TemporaryFolder.with { folder in
      try folder.write(Self.base.bytes, to: "base.vdi")
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
      try chain.writeBytes([UInt8](repeating: 8, count: 8192), at: 0)
      try chain.discard(at: 0, count: 4096)
      try chain.writeZeros(at: 4096, count: 4096)
      try chain.close()
      #expect(VDIBytes(try Files.read(path)).entries == [VDIBytes.zeros, VDIBytes.zeros, 0])
      #expect(try ImageOpener.open(path).readBytes(at: 0, count: 8192).isZero)
    }
  }

  @Test func commitEmptiesTheImageAndRecordsTheParentAsItIsNow() throws {
    try TemporaryFolder.with { folder in
      try folder.write(Self.base.bytes, to: "base.vdi")
      let path = try folder.write(Self.child(change: 0xa2).bytes, to: "child.vdi")
      let told = Told()
      var options = OpenOptions(access: .readWrite)
      options.note = { told.add($0) }
      let chain = try ImageOpener.open(path, options)
      let base = try ImageOpener.reopenForWriting(chain, from: 1, options)
      try Committer.commit(chain, at: 1, into: base)
      try Committer.empty(chain)
      #expect(try ImageOpener.open(folder.file("base.vdi")).readAll() == Self.merged)
      let after = VDIBytes(try Files.read(path))
      #expect(after.entries == [VDIBytes.free, VDIBytes.free, VDIBytes.free] && after.field(388) == 0)
      #expect(after.bytes.count == 1024)
      #expect(try ImageOpener.open(path, options).readAll() == Self.merged)
      #expect(told.lines.isEmpty, "\(told.lines)")
    }
  }

  @Test func rebaseRecordsAnotherParentOrNone() throws {
    try TemporaryFolder.with { folder in
      try folder.write(Self.base.bytes, to: "base.vdi")
      let other = VDIBytes(entries: [2, 1, 0], fill: 0x40, id: 0xd1)
      let otherPath = try folder.write(other.bytes, to: "other.vdi")
      let path = try folder.write(Self.child().bytes, to: "child.vdi")
      let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
      try Rebaser.copyDifferences(into: chain, from: try ImageOpener.open(otherPath))
      try Rebaser.setBacking(of: chain, to: BackingReference(name: "other.vdi", format: "vdi"))
      let moved = try ImageOpener.open(path, OpenOptions(access: .readWrite))
      #expect(moved.members[1].path.hasSuffix("other.vdi"))
      #expect(try moved.readAll() == Self.merged)
      try Rebaser.copyDifferences(into: moved, from: nil)
      try Rebaser.setBacking(of: moved, to: nil)
      let alone = try ImageOpener.open(path)
      #expect(alone.members.count == 1)
      #expect(try alone.readAll() == Self.merged)
    }
  }
}
