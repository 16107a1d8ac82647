@testable import FormatEngine
import Glibc
import TestSupport
import Testing

/// The files of overlays: who may read them, and where they are.
@Suite struct OverlayFileTests {
  private static func withBase(
    _ body: (_ folder: TemporaryFolder, _ options: OpenOptions) throws -> Void
  ) throws {
    try TemporaryFolder.with { folder in
      _ = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "base.img")
      var options = OpenOptions(format: "raw")
      options.sharing = .readersOnly
      try body(folder, options)
    }
  }

  @Test func temporaryFilesAreNobodyElsesAndHaveNoName() throws {
    try TemporaryFolder.with { folder in
      for store in [
        try FileStore.createUnnamed(inFolder: folder.path),
        try FileStore.createUnlinked(inFolder: folder.path),
      ] {
        try store.write(bytes: [1, 2, 3], at: 100_000)
        #expect(try store.bytes(at: 100_000, count: 3) == [1, 2, 3])
        #expect(try folder.names().isEmpty)
        var status = stat()
        #expect(unsafe fstat(try #require(store.spliceDescriptor), &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600 && status.st_nlink == 0)
      }
      #expect(throws: EngineError.self) { try FileStore.createUnnamed(inFolder: folder.file("none")) }
    }
  }

  @Test func aKeptOverlayIsAsPrivateAsItsImage() throws {
    try Self.withBase { folder, options in
      for (mode, expected) in [(mode_t(0o600), mode_t(0o600)), (0o644, 0o644)] {
        unsafe chmod(folder.file("base.img"), mode)
        let path = folder.file("over-\(mode)")
        let image = try ImageOpener.open(folder.file("base.img"), options)
        let overlay = try Overlay(over: image, options, at: .kept(path))
        #expect(try Self.mode(of: path) == expected)
        try overlay.chain.close()
      }
    }
  }

  /// It takes bytes of all files of the chain.
  @Test func aKeptOverlayIsAsPrivateAsTheMostPrivateFile() throws {
    try TemporaryFolder.with { folder in
      _ = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "base")
      let top = folder.file("top")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", top, folder: folder.path)
      unsafe chmod(folder.file("base"), 0o600)
      unsafe chmod(top, 0o644)
      var options = OpenOptions(format: "qcow2")
      options.sharing = .readersOnly
      let overlay = try Overlay(
        over: try ImageOpener.open(top, options), options, at: .kept(folder.file("over")))
      #expect(try Self.mode(of: folder.file("over")) == 0o600)
      try overlay.chain.close()
    }
  }

  /// Also of those that the image names itself, open or in a pool.
  @Test(arguments: [
    ("vmdk", "subformat=monolithicFlat", "image-flat.vmdk"),
    ("vmdk", "subformat=twoGbMaxExtentSparse", "image-s001.vmdk"),
    ("qcow2", "data_file=data.raw", "data.raw"),
  ])
  func aKeptOverlayIsAsPrivateAsAFileThatTheImageNames(_ format: String, _ option: String, _ file: String)
    throws
  {
    try TemporaryFolder.with { folder in
      let image = folder.file("image.vmdk")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", format, "-o", option, "image.vmdk", "1M", folder: folder.path)
      unsafe chmod(image, 0o644)
      unsafe chmod(folder.file(file), 0o600)
      var options = OpenOptions(format: format)
      options.sharing = .readersOnly
      let overlay = try Overlay(
        over: try ImageOpener.open(image, options), options, at: .kept(folder.file("over")))
      #expect(try Self.mode(of: folder.file("over")) == 0o600)
      try overlay.chain.close()
    }
  }

  /// Its group may be another one than the image's, unless the folder hands that down.
  @Test(.enabled(if: geteuid() == 0)) func aKeptOverlayGivesNothingToAnotherGroup() throws {
    try Self.withBase { folder, options in
      let base = folder.file("base.img")
      unsafe chown(base, 0, 12_345)
      for (number, (mode, folderMode, expected)) in [
        (mode_t(0o660), mode_t(0o755), mode_t(0o600)), (0o644, 0o755, 0o644), (0o604, 0o755, 0o600),
        (0o640, 0o2755, 0o640), (0o604, 0o2755, 0o604),
      ].enumerated() {
        unsafe chmod(base, mode)
        let other = try folder.makeFolder("other-\(number)")
        unsafe chown(other, 0, 12_345)
        unsafe chmod(other, folderMode)
        let path = other + "/over"
        let overlay = try Overlay(over: try ImageOpener.open(base, options), options, at: .kept(path))
        #expect(try Self.mode(of: path) == expected, "\(number)")
        try overlay.chain.close()
      }
    }
  }

  @Test(arguments: [false, true]) func aKeptOverlayOfAnEncryptedImageIsItsOwnersAlone(_ isBelow: Bool) throws
  {
    try TemporaryFolder.with { folder in
      let image = folder.file("image")
      try ReferenceTool.create(
        image, format: "luks", size: 1 << 20, options: ["iter-time=10"], passphrase: "sesame")
      if isBelow {
        try ReferenceTool.qemuImg(
          "create", "-q", "-f", "qcow2", "-u", "-b", "image", "-F", "luks", "top", "1M", folder: folder.path)
      }
      var options = OpenOptions(format: isBelow ? "qcow2" : "luks")
      options.sharing = .readersOnly
      options.secrets.unnamed = Secret(text: "sesame")
      let chain = try ImageOpener.open(isBelow ? folder.file("top") : image, options)
      let overlay = try Overlay(over: chain, options, at: .kept(folder.file("over")))
      #expect(try Self.mode(of: image) & 0o044 != 0)
      #expect(try Self.mode(of: folder.file("over")) == 0o600)
      try overlay.chain.close()
    }
  }

  private static func mode(of path: String) throws -> mode_t {
    var status = stat()
    try #require(unsafe stat(path, &status) == 0)
    return status.st_mode & 0o777
  }
}
