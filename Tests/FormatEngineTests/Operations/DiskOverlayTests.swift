@testable import FormatEngine
import Glibc
import Synchronization
import TestSupport
import Testing

/// Writes that go to an image of their own: over every format, and folded in afterwards.
@Suite struct DiskOverlayTests {
  private static let bytes = [UInt8](repeating: 0xa5, count: 70_000)

  /// All kinds of changes, to the overlay and to the model; the disk ends 1 MiB larger.
  private func change(_ chain: ImageChain, _ model: inout ModelDisk, _ random: inout SeededRandom) throws {
    for round in 0..<12 {
      let range = random.range(in: model.byteCount, most: 150_000)
      let (offset, count) = (UInt64(range.lowerBound), UInt64(range.count))
      switch round % 4 {
      case 0:
        try chain.writeZeros(at: offset, count: count)
        model.writeZeros(at: range.lowerBound, count: range.count)
      case 1:
        try chain.discard(at: offset, count: count)
        model.write(try chain.readBytes(at: offset, count: range.count), at: range.lowerBound)
      default:
        let bytes = random.bytes(range.count)
        try chain.writeBytes(bytes, at: offset)
        model.write(bytes, at: range.lowerBound)
      }
    }
    try chain.flush()
    #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "\(random)")
  }

  private func options(_ row: ConformanceRow) -> OpenOptions {
    var options = OpenOptions(format: row.format)
    options.sharing = .readersOnly
    if let passphrase = row.passphrase { options.use(passphrase: passphrase) }
    return options
  }

  @Test(arguments: ConformanceRow.oneOfEachKind)
  func everyFormatIsWrittenThroughATemporaryOverlay(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 501)
    try row.withFixture { fixture in
      let names = try fixture.folder.names()
      let before = try names.map { try Files.read(fixture.folder.file($0)) }
      do {
        let options = options(row)
        let image = try ImageOpener.open(fixture.path, options)
        let overlay = try Overlay(over: image, options, at: .temporary(inFolder: fixture.folder.path))
        var model = ModelDisk(fixture.model.bytes)
        #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil)
        try change(overlay.chain, &model, &random)
        #expect(overlay.chain.isWritable && overlay.chain.members.count == image.members.count + 1)
        #expect(try fixture.folder.names() == names)
        try overlay.chain.close()
      }
      for (name, bytes) in zip(names, before) {
        #expect(try Files.read(fixture.folder.file(name)) == bytes, "\(name)")
      }
      #expect(fixture.folder.openFiles().isEmpty)
    }
  }

  @Test(arguments: ConformanceRow.oneOfEachKind.filter { $0.fileName == "image" })
  func commitsFoldTheOverlayInAndItGoesOn(_ row: ConformanceRow) throws {
    var random = SeededRandom.fromEnvironment(or: 502)
    try row.withFixture { fixture in
      let options = options(row)
      let overlay = try Overlay(
        over: try ImageOpener.open(fixture.path, options), options,
        at: .temporary(inFolder: fixture.folder.path))
      var model = ModelDisk(fixture.model.bytes)
      for round in 0..<2 {
        try change(overlay.chain, &model, &random)
        do throws(EngineError) {
          try overlay.commit()
        } catch {
          // Of formats that nobody writes, and of some kinds of others.
          #expect(!row.isWritable || row.format == "vmdk", "\(error)")
          #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil, "\(error)")
          try overlay.chain.writeBytes([1, 2, 3], at: 5)
          return
        }
        #expect(row.isWritable)
        #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil, "round \(round)")
        // The overlay is empty, and the image has it all.
        #expect(try overlay.chain.delta(at: 0).allExtents().allSatisfy(\.located.readsAsZeros))
        let lower = try overlay.chain.lower(from: 1).readAll()
        #expect(ModelDisk.firstDifference(lower, model.bytes) == nil, "round \(round)")
        // Nobody else could have had it meanwhile, or can now.
        #expect(throws: EngineError.self) {
          var writing = self.options(row)
          writing.access = .readWrite
          _ = try ImageOpener.open(fixture.path, writing)
        }
      }
      try overlay.chain.close()
    }
  }

  // MARK: Overlays that are kept

  private func withBase(
    _ format: String = "qcow2", _ body: (TemporaryFolder, OpenOptions, ModelDisk) throws -> Void
  ) throws {
    var random = SeededRandom.fromEnvironment(or: 503)
    let model = ModelDisk(random.bytes(2 << 20))
    try TemporaryFolder.with { folder in
      try ReferenceTool.makeBase("base.img", format, model.bytes, in: folder)
      var options = OpenOptions(format: format)
      options.sharing = .readersOnly
      try body(folder, options, model)
    }
  }

  @Test(arguments: ["qcow2", "raw", "vmdk", "vdi"])
  func aKeptOverlayIsUsedAgainAndIsAnyToolsImage(_ format: String) throws {
    var random = SeededRandom.fromEnvironment(or: 504)
    try withBase(format) { folder, options, first in
      var model = first
      let path = folder.file("over.qcow2")
      for _ in 0..<2 {
        let image = try ImageOpener.open(folder.file("base.img"), options)
        let overlay = try Overlay(over: image, options, at: .kept(path))
        #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil)
        try change(overlay.chain, &model, &random)
        try overlay.chain.close()
      }
      #expect(try ReferenceTool.content(of: path, format: "qcow2", in: folder) == model.bytes)
      let info = try ReferenceTool.qemuImg("info", path).stdoutText
      #expect(info.contains("backing file: \(folder.file("base.img"))\nbacking file format: \(format)\n"))
      let verdict = try ReferenceTool.check(path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
      // Larger, and folded in.
      let overlay = try Overlay(
        over: try ImageOpener.open(folder.file("base.img"), options), options, at: .kept(path))
      try overlay.chain.resize(to: 3 << 20)
      try overlay.chain.writeBytes(Self.bytes, at: (3 << 20) - 70_000)
      let whole = try overlay.chain.readAll()
      guard format != "vmdk" else { return }
      try overlay.commit()
      #expect(try overlay.chain.readAll() == whole)
      try overlay.chain.close()
      withExtendedLifetime(overlay) {}
      #expect(try ReferenceTool.content(of: path, format: "qcow2", in: folder) == whole)
    }
    // What the judge would be kept from is closed now.
  }

  @Test func otherFilesAreNeverTakenForTheOverlay() throws {
    try withBase { folder, options, _ in
      let base = folder.file("base.img")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "alone", "2M", folder: folder.path)
      try ReferenceTool.makeBase("other.img", "qcow2", [1, 2, 3, 4], in: folder)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "other.img", "-F", "qcow2", "another", folder: folder.path)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", "taken-raw", folder: folder.path)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "qcow2", "sound", folder: folder.path)
      try folder.write([UInt8](repeating: 1, count: 5000), to: "text")
      unsafe symlink("nowhere", folder.file("dangling"))
      unsafe symlink("base.img", folder.file("link"))
      _ = try folder.makeFolder("folder")
      let before = try folder.names().filter { $0 != "folder" && $0 != "dangling" }
        .map { ($0, try Files.read(folder.file($0))) }
      let image = try ImageOpener.open(base, options)
      for (name, part) in [
        ("alone", "it has no backing file"), ("another", "its backing file is 'other.img'"),
        ("taken-raw", "it takes that for a raw image"), ("text", "it is no qcow2 image, but raw"),
        ("base.img", "the image itself lies in"), ("link", "the image itself lies in"),
        ("dangling", "File exists"), ("folder", "regular file"), ("none/file", "No such file"),
      ] {
        let error = #expect(throws: EngineError.self, "\(name)") {
          _ = try Overlay(over: image, options, at: .kept(folder.file(name)))
        }
        #expect(error?.message.contains(part) == true, "\(name): \(error?.message ?? "")")
      }
      for (name, bytes) in before { #expect(try Files.read(folder.file(name)) == bytes, "\(name)") }
      // One that somebody else made, by a relative name; and no second time while it is in use.
      let overlay = try Overlay(over: image, options, at: .kept(folder.file("sound")))
      let error = #expect(throws: EngineError.self) {
        _ = try Overlay(over: image, options, at: .kept(folder.file("sound")))
      }
      #expect(error?.code == .locked)
      try overlay.chain.close()
    }
  }

  @Test func whatNoNameSaysTakesATemporaryOverlayOnly() throws {
    try withBase { folder, options, model in
      let base = folder.file("base.img")
      try ReferenceTool.qemuImg("snapshot", "-c", "old", base)
      try ReferenceTool.io(["write -P 9 0 1M"], on: base, format: "qcow2")
      let image = try ImageOpener.open(base, options)
      let layer = try #require(image.top as? any SnapshotKeeping)
      let view = image.replacing(
        layerAt: 0, with: try layer.openSnapshot(try #require(try layer.snapshots().first)))
      let path = folder.file("over.qcow2")
      let error = #expect(throws: EngineError.self) { _ = try Overlay(over: view, options, at: .kept(path)) }
      #expect(error?.message.contains("which snapshot is meant") == true)
      #expect(!Files.exists(path))
      let overlay = try Overlay(over: view, options, at: .temporary(inFolder: folder.path))
      var (changed, random) = (model, SeededRandom(seed: 5))
      try change(overlay.chain, &changed, &random)
      #expect(throws: EngineError.self) { try overlay.commit() }
      #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), changed.bytes) == nil)
      // Opened without what lies below it.
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "qcow2", "top", folder: folder.path)
      var alone = options
      alone.backing = .ignore
      let cut = try ImageOpener.open(folder.file("top"), alone)
      #expect(throws: EngineError.self) { _ = try Overlay(over: cut, alone, at: .kept(path)) }
    }
  }

  /// A piece of a raw file: its options are recorded, and the judge reads the same.
  @Test func imagesWithOptionsAreRecordedWithThem() throws {
    try withBase("raw") { folder, options, model in
      let tree = ImageSpecification(
        options: "driver=raw,offset=65536,size=1048576,file.filename=\(folder.file("base.img"))")
      var options = options
      options.format = nil
      let path = folder.file("over.qcow2")
      var expected = ModelDisk(model.read(at: 65_536, count: 1 << 20))
      for round in 0..<2 {
        let overlay = try Overlay(over: try ImageOpener.open(tree, options), options, at: .kept(path))
        try overlay.chain.writeBytes(Self.bytes, at: UInt64(round * 300_000))
        expected.write(Self.bytes, at: round * 300_000)
        #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), expected.bytes) == nil)
        try overlay.chain.close()
      }
      #expect(try ReferenceTool.content(of: path, format: "qcow2", in: folder) == expected.bytes)
      let whole = try ImageOpener.open(folder.file("base.img"), OpenOptions(format: "raw"))
      #expect(throws: EngineError.self) { _ = try Overlay(over: whole, options, at: .kept(path)) }
    }
  }

  // MARK: Folding in

  @Test func aCommitThatStopsLosesNothing() throws {
    try withBase { folder, options, first in
      var (model, random) = (first, SeededRandom(seed: 6))
      let path = folder.file("over.qcow2")
      let overlay = try Overlay(
        over: try ImageOpener.open(folder.file("base.img"), options), options, at: .kept(path))
      for _ in 0..<4 { try change(overlay.chain, &model, &random) }
      let counter = Counter()
      let progress = Progress(report: { _, _ in }, isCancelled: { counter.next() > 3 })
      let error = #expect(throws: EngineError.self) { try overlay.commit(progress: progress) }
      #expect(error?.code == .cancelled)
      #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil)
      try change(overlay.chain, &model, &random)
      try overlay.commit()
      #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil)
      try overlay.chain.close()
      for name in ["base.img", "over.qcow2"] {
        let result = try ReferenceTool.qemuImg.run(["check", "-U", folder.file(name)])
        #expect(result.status == 0, "\(result.stdoutText)")
      }
      let raw = folder.file("raw")
      _ = try ReferenceTool.qemuImg.run(["convert", "-U", "-O", "raw", folder.file("base.img"), raw])
        .expecting(0)
      #expect(ModelDisk.firstDifference(try Files.read(raw), model.bytes) == nil)
    }
  }

  /// That is a failure, the overlay goes on holding everything, and the next commit opens the image.
  @Test func anImageThatCannotBeOpenedAgainIsAnErrorUntilItCan() throws {
    try withBase { folder, options, first in
      let (base, away) = (folder.file("base.img"), folder.file("away"))
      let overlay = try Overlay(
        over: try ImageOpener.open(base, options), options, at: .temporary(inFolder: folder.path))
      var model = first
      try overlay.chain.writeBytes(Self.bytes, at: 100)
      model.write(Self.bytes, at: 100)
      let leaving = Progress(
        report: { _, _ in },
        isCancelled: {
          unsafe rename(base, away)
          return false
        })
      let error = #expect(throws: EngineError.self) { try overlay.commit(progress: leaving) }
      #expect(
        error?.code == .notFound && error?.message.contains("'\(base)' again") == true,
        "\(String(describing: error))")
      for _ in 0..<2 {
        #expect(overlay.chain.members[1].missing?.reason == error)
        #expect(try overlay.chain.readBytes(at: 65_536, count: 4096).holdsOnly(0xa5))
        #expect(throws: EngineError.self) { try overlay.chain.readBytes(at: 1 << 20, count: 1) }
        let again = #expect(throws: EngineError.self) { try overlay.commit() }
        #expect(again == error)
      }
      // Another file in its place is none that would do.
      try folder.write([1, 2, 3], to: "base.img")
      #expect(throws: EngineError.self) { try overlay.commit() }
      #expect(try Files.read(base) == [1, 2, 3])
      unsafe rename(away, base)
      // A whole cluster needs nothing of the image.
      let cluster = [UInt8](repeating: 3, count: 65_536)
      try overlay.chain.writeBytes(cluster, at: 262_144)
      model.write(cluster, at: 262_144)
      try overlay.commit()
      #expect(ModelDisk.firstDifference(try overlay.chain.readAll(), model.bytes) == nil)
      #expect(try overlay.chain.delta(at: 0).allExtents().allSatisfy(\.located.readsAsZeros))
      #expect(ModelDisk.firstDifference(try overlay.chain.lower(from: 1).readAll(), model.bytes) == nil)
      try overlay.chain.writeBytes([1, 2, 3], at: 5)
      try overlay.commit()
      #expect(try overlay.chain.lower(from: 1).readBytes(at: 5, count: 3) == [1, 2, 3])
    }
  }

  @Test func aBaseThatOthersHoldIsNotWrittenTo() throws {
    try withBase { folder, options, model in
      let base = folder.file("base.img")
      let overlay = try Overlay(
        over: try ImageOpener.open(base, options), options, at: .temporary(inFolder: folder.path))
      try overlay.chain.writeBytes(Self.bytes, at: 0)
      do {
        let reader = try ImageOpener.open(base, options)
        let error = #expect(throws: EngineError.self) { try overlay.commit() }
        #expect(error?.code == .locked)
        #expect(try reader.readAll() == model.bytes)
        #expect(try overlay.chain.readBytes(at: 0, count: 70_000) == Self.bytes)
        try reader.close()
      }
      let result = try ReferenceTool.qemuIO.run(["-c", "write 0 512", base])
      #expect(result.stderrText.contains("lock"))
      try overlay.commit()
      #expect(try overlay.chain.lower(from: 1).readBytes(at: 0, count: 70_000) == Self.bytes)
    }
  }

  @Test func aBaseThatMayNotBeWrittenStaysAsItIs() throws {
    try withBase { folder, options, model in
      var options = options
      options.layerOptions = ["read-only": "on"]
      let base = folder.file("base.img")
      let before = try Files.read(base)
      let overlay = try Overlay(
        over: try ImageOpener.open(base, options), options, at: .temporary(inFolder: folder.path))
      try overlay.chain.writeBytes(Self.bytes, at: 100)
      let chain = overlay.chain
      let error = #expect(throws: EngineError.self) { try overlay.commit() }
      #expect(error?.code == .readOnly && overlay.chain === chain)
      #expect(try Files.read(base) == before)
      #expect(try overlay.chain.readBytes(at: 100, count: 70_000) == Self.bytes)
    }
  }

  /// What is written is read again, what is not there stays an error, also once the overlay is folded in.
  @Test func overlaysWorkOverAChainWithAMissingMember() throws {
    try withBase { folder, options, _ in
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "qcow2", "top", folder: folder.path)
      unsafe unlink(folder.file("base.img"))
      var options = options
      options.missing = .kept
      let overlay = try Overlay(
        over: try ImageOpener.open(folder.file("top"), options), options, at: .kept(folder.file("over")))
      let cluster = [UInt8](repeating: 3, count: 65_536)
      try overlay.chain.writeBytes(cluster, at: 131_072)
      for _ in 0..<2 {
        #expect(try overlay.chain.readBytes(at: 131_072, count: 65_536) == cluster)
        for offset in [UInt64(0), 131_071, 196_608] {
          let error = #expect(throws: EngineError.self) {
            try overlay.chain.readBytes(at: offset, count: 1)
          }
          #expect(error?.errno == EIO)
        }
        let error = #expect(throws: EngineError.self) { try overlay.chain.writeBytes([1], at: 0) }
        #expect(error?.errno == EIO)
        try overlay.commit()
      }
      try overlay.chain.close()
    }
  }
}

private final class Counter: Sendable {
  private let count = Atomic(0)

  func next() -> Int { count.add(1, ordering: .relaxed).newValue }
}
