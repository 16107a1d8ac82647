import FormatEngine
import Glibc
import TestSupport
import Testing

/// Chains of which a file below the top cannot be opened.
@Suite struct MissingMemberTests {
  private static let size = 1 << 20

  /// base.raw below middle.qcow2 below top.qcow2: 1 everywhere, 2 in the second 128 KiB, 3 in the third.
  private func withChain(_ body: (TemporaryFolder, OpenOptions) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 1, count: Self.size), to: "base.raw")
      try ReferenceTool.create(
        "middle.qcow2", format: "qcow2", size: Self.size, over: ("base.raw", "raw"), folder: folder.path)
      try ReferenceTool.create(
        "top.qcow2", format: "qcow2", size: Self.size, over: ("middle.qcow2", "qcow2"), folder: folder.path)
      try ReferenceTool.io(["write -P 2 128k 128k"], on: folder.file("middle.qcow2"), format: "qcow2")
      try ReferenceTool.io(["write -P 3 256k 128k"], on: folder.file("top.qcow2"), format: "qcow2")
      var options = OpenOptions(format: "qcow2")
      options.missing = .kept
      try body(folder, options)
    }
  }

  private func requireRefusal(_ folder: TemporaryFolder, _ options: OpenOptions, _ part: String) {
    var options = options
    options.missing = .refused
    let error = #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("top.qcow2"), options) }
    #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
  }

  @Test func whatTheLayersAboveStoreIsReadAndAllElseIsAnError() throws {
    try withChain { folder, options in
      HostFile.remove(folder.file("base.raw"))
      requireRefusal(folder, options, "Could not open backing file: Could not open")
      let chain = try ImageOpener.open(folder.file("top.qcow2"), options)
      #expect(chain.members.map(\.isMissing) == [false, false, true])
      let missing = try #require(chain.members[2].missing)
      #expect(missing.name == "base.raw" && missing.path == folder.file("base.raw"))
      #expect(missing.reason.code == .notFound)
      #expect(
        missing.reason.message
          == "Could not open backing file: Could not open '\(folder.file("base.raw"))': No such file or directory"
      )
      #expect(try chain.readBytes(at: 131_072, count: 131_072).holdsOnly(2))
      #expect(try chain.readBytes(at: 262_144, count: 131_072).holdsOnly(3))
      for (offset, count) in [(UInt64(0), 1), (131_071, 2), (393_215, 2), (UInt64(Self.size) - 1, 1)] {
        let error = #expect(throws: EngineError.self) { try chain.readBytes(at: offset, count: count) }
        #expect(error?.errno == EIO && error?.message == missing.reason.message)
      }
      #expect(throws: EngineError.self) { try chain.extent(at: 0, limit: 4096) }
      #expect(throws: EngineError.self) { try chain.lower(from: 2).readBytes(at: 0, count: 1) }
      #expect(chain.lower(from: 2).virtualSize == chain.virtualSize)
      for depth in 0...1 { #expect(try ImageInfo.of(chain.members[depth]).format == "qcow2") }
      #expect(throws: missing.reason) { try ImageInfo.of(chain.members[2]) }
      // What a file stores itself does not need the others.
      #expect(try chain.delta(at: 1).readBytes(at: 0, count: 131_072).isZero)
    }
  }

  /// Writing whole clusters needs nothing of what is missing; parts of one do, and fail as a whole.
  @Test func writesThatNeedTheMissingBytesFailAndDamageNothing() throws {
    try withChain { folder, options in
      HostFile.remove(folder.file("base.raw"))
      var options = options
      options.access = .readWrite
      do {
        let chain = try ImageOpener.open(folder.file("top.qcow2"), options)
        try chain.writeBytes([UInt8](repeating: 4, count: 65_536), at: 655_360)
        #expect(throws: EngineError.self) { try chain.writeBytes([5], at: 720_896) }
        #expect(throws: EngineError.self) { try chain.readBytes(at: 720_896, count: 1) }
        // It may be longer than anybody here knows.
        #expect(throws: Never.self) { try chain.resize(to: UInt64(Self.size) * 2) }
        try chain.close()
      }
      try folder.write([UInt8](repeating: 1, count: Self.size), to: "base.raw")
      let verdict = try ReferenceTool.check(folder.file("top.qcow2"), format: "qcow2")
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
      let content = try ReferenceTool.content(of: folder.file("top.qcow2"), format: "qcow2", in: folder)
      #expect(Array(content[655_360..<720_896]).holdsOnly(4) && content[720_896] == 1)
      #expect(Array(content[Self.size...]).isZero)
    }
  }

  @Test func aDiskOverAMissingFileDoesNotGrow() throws {
    try withChain { folder, options in
      HostFile.remove(folder.file("middle.qcow2"))
      var options = options
      options.access = .readWrite
      let chain = try ImageOpener.open(folder.file("top.qcow2"), options)
      #expect(chain.members.count == 2)
      #expect(throws: EngineError.self) { try chain.resize(to: UInt64(Self.size) * 2) }
      #expect(chain.virtualSize == UInt64(Self.size))
    }
  }

  /// A snapshot may be longer than its image is now: what is missing below it reaches as far as it does.
  @Test func whatIsMissingReachesAsFarAsALongerSnapshot() throws {
    try withChain { folder, options in
      let middle = folder.file("middle.qcow2")
      try ReferenceTool.qemuImg("snapshot", "-c", "long", middle)
      try ReferenceTool.qemuImg("resize", "-q", "--shrink", middle, "512k")
      HostFile.remove(folder.file("base.raw"))
      for name in ["middle.qcow2", "top.qcow2"] {
        let image = try ImageOpener.open(folder.file(name), options)
        let depth = image.members.count - 2
        let layer = try #require(image.members[depth].layer as? any SnapshotKeeping)
        let chain = image.replacing(
          layerAt: depth, with: try layer.openSnapshot(try #require(try layer.snapshots().first)))
        #expect(chain.virtualSize == UInt64(Self.size))
        #expect(chain.members.map(\.isMissing) == [false, true])
        #expect(chain.members.last?.missing == image.members.last?.missing)
        #expect(try chain.readBytes(at: 131_072, count: 131_072).holdsOnly(2))
        for offset in [UInt64(0), 524_287, 524_288, UInt64(Self.size) - 1] {
          let error = #expect(throws: EngineError.self) { try chain.readBytes(at: offset, count: 1) }
          #expect(error?.errno == EIO)
        }
        // The image itself ends where it ends now.
        #expect(image.members[depth + 1].layer.virtualSize == image.members[depth].layer.virtualSize)
      }
    }
  }

  /// A file that only wants its passphrase is there.
  @Test func encryptedFilesAreNeverMissing() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(
        folder.file("base"), format: "luks", size: Self.size, options: ["iter-time=10"], passphrase: "sesame")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-u", "-b", "base", "-F", "luks", "top", "1M", folder: folder.path)
      var options = OpenOptions(format: "qcow2")
      options.missing = .kept
      for (passphrase, code) in [(nil, EngineError.Code.missingKey), ("barley", .wrongKey)] {
        if let passphrase { options.secrets.unnamed = Secret(text: passphrase) }
        let error = #expect(throws: EngineError.self) {
          try ImageOpener.open(folder.file("top"), options)
        }
        #expect(error?.code == code, "\(String(describing: error))")
      }
      var known = OpenOptions(format: "qcow2")
      known.secrets.unnamed = Secret(text: "sesame")
      #expect(try ImageOpener.open(folder.file("top"), known).members.count == 2)
    }
  }

  /// Each failure keeps its own reason, which says which file it is about.
  @Test func everyReasonIsTold() throws {
    try withChain { folder, options in
      let (base, top) = (folder.file("base.raw"), folder.file("top.qcow2"))
      func reason(_ options: OpenOptions) throws -> EngineError {
        let chain = try ImageOpener.open(top, options)
        let missing = try #require(chain.members.last?.missing)
        #expect(missing.reason.message.contains(missing.name), "\(missing.reason.message)")
        requireRefusal(
          folder, options, missing.reason.message.split(separator: ":").last.map(String.init) ?? "?")
        return missing.reason
      }
      // Not allowed.
      var confined = options
      let other = try folder.makeFolder("other")
      confined.policy = ReferencePolicy(.folders([try AllowedFolder(other)]))
      #expect(try reason(confined).code == .forbidden)
      confined.policy = ReferencePolicy(.nowhere)
      #expect(try reason(confined).message.contains("no file that an image names is to be opened"))
      // A folder, and a loop.
      HostFile.remove(base)
      _ = try folder.makeFolder("base.raw")
      #expect(try reason(options).message.contains("regular file"))
      unsafe rmdir(base)
      unsafe symlink("top.qcow2", base)
      try ReferenceTool.qemuImg(
        "rebase", "-u", "-b", "base.raw", "-F", "qcow2", "middle.qcow2", folder: folder.path)
      #expect(try reason(options).message.contains("loop"))
      // Not of its format.
      HostFile.remove(base)
      try folder.write([UInt8](repeating: 1, count: Self.size), to: "base.raw")
      #expect(try reason(options).message.contains("'\(base)'"))
      // A driver that nobody has.
      try ReferenceTool.qemuImg(
        "rebase", "-u", "-b", "nbd://localhost/base.raw", "-F", "raw", "middle.qcow2", folder: folder.path)
      _ = try reason(options)
    }
  }

  @Test func theTopAndLockedFilesAndGivenOnesAreNeverMissing() throws {
    try withChain { folder, options in
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("none.qcow2"), options) }
      var given = options
      given.layerOptions = ["backing.driver": "raw", "backing.file.filename": folder.file("none.raw")]
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("top.qcow2"), given) }
      given.layerOptions = ["backing.nothing": "1"]
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("top.qcow2"), given) }
      let holder = try ImageOpener.open(
        folder.file("middle.qcow2"), OpenOptions(format: "qcow2", access: .readWrite))
      let error = #expect(throws: EngineError.self) {
        try ImageOpener.open(folder.file("top.qcow2"), options)
      }
      #expect(error?.code == .locked)
      try holder.close()
      #expect(try ImageOpener.open(folder.file("top.qcow2"), options).members.count == 3)
    }
  }

  /// Nobody would see which file of it is missing.
  @Test func theDiskOfAnotherImageIsWhole() throws {
    try withChain { folder, options in
      var options = options
      options.format = nil
      let image = ImageSpecification(
        options: "driver=raw,file.driver=qcow2,file.file.filename=\(folder.file("top.qcow2"))")
      let whole = try ImageOpener.open(image, options)
      #expect(whole.members.count == 1)
      HostFile.remove(folder.file("middle.qcow2"))
      let chain = try ImageOpener.open(folder.file("top.qcow2"), options)
      #expect(chain.members.last?.isMissing == true)
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(image, options) }
      // Nor would it be opened without that file another time.
      #expect(error?.isOfMissingMember == false)
    }
  }

  /// Parents that are known by an id, and names of another system.
  @Test(arguments: ["vmdk", "vdi", "vpc", "vhdx"]) func parentsAreToldByWhatIsRecorded(_ format: String)
    throws
  {
    try TemporaryFolder.with { folder in
      let type = try #require(FormatCatalog.format(named: format) as? any CreatableFormat.Type)
      func make(_ name: String, over backing: BackingReference?) throws {
        let path = folder.file(name)
        try type.create(
          on: FileStore.create(path, cache: .unflushed),
          CreateRequest(
            path: path, virtualSize: 8 << 20, backing: backing, options: OptionValues(type.createOptions),
            references: ReferenceOpener()))
      }
      let (base, top) = ("base.\(format)", "top.\(format)")
      try make(base, over: nil)
      try make(top, over: BackingReference(name: base, format: format))
      var options = OpenOptions(format: format, access: .readWrite)
      do {
        let chain = try ImageOpener.open(folder.file(top), options)
        try chain.writeBytes([UInt8](repeating: 6, count: 2 << 20), at: 2 << 20)
        try chain.close()
      }
      // Gone, then another disk in its place.
      HostFile.remove(folder.file(base))
      options = OpenOptions(format: format)
      options.missing = .kept
      for isThere in [false, true] {
        if isThere { try make(base, over: nil) }
        let chain = try ImageOpener.open(folder.file(top), options)
        // A VDI records an id alone: no file is known to be the one.
        let missing = try #require(chain.members.dropFirst().first?.missing)
        #expect(!missing.name.isEmpty && !missing.reason.message.isEmpty)
        if format != "vdi" { #expect(missing.path == folder.file(base), "\(missing)") }
        #expect(missing.reason.message.hasPrefix("Could not open backing file"), "\(missing)")
        #expect(try chain.readBytes(at: 2 << 20, count: 2 << 20).holdsOnly(6))
        #expect(throws: EngineError.self) { try chain.readBytes(at: 0, count: 512) }
        #expect(throws: EngineError.self) {
          try ImageOpener.open(folder.file(top), OpenOptions(format: format))
        }
      }
    }
  }
}

private enum HostFile {
  static func remove(_ path: String) { unsafe unlink(path) }
}
