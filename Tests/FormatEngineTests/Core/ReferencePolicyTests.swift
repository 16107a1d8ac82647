@testable import FormatEngine
import Foundation
import Synchronization
import TestSupport
import Testing

/// Which files an image may name.
@Suite struct ReferencePolicyTests {
  private func resolve(_ name: String, _ scope: ReferencePolicy.Scope, in folder: TemporaryFolder)
    throws(EngineError)
    -> String
  {
    let place = try place(name, scope, in: folder)
    if place.confinement != nil { _ = try FileStore.open(place, access: .readOnly, cache: .unflushed) }
    return place.path
  }

  private func place(_ name: String, _ scope: ReferencePolicy.Scope, in folder: TemporaryFolder)
    throws(EngineError) -> FilePlace
  {
    try ReferencePolicy(scope).resolve(name, for: .backingFile, namedBy: folder.file("images/top.qcow2"))
  }

  /// images/ with a file, and one outside of it.
  private func withFiles(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      _ = try folder.makeFolder("images/deep")
      _ = try folder.makeFolder("images-too")
      for name in ["images/base", "images/deep/base", "images-too/base", "secret"] {
        try folder.write([1], to: name)
      }
      try body(folder)
    }
  }

  @Test func namesAreRelativeToTheImage() throws {
    try withFiles { (folder) throws in
      #expect(try resolve("base", .anywhere, in: folder) == folder.file("images/base"))
      #expect(try resolve("/a/b", .anywhere, in: folder) == "/a/b")
      #expect(try resolve("file:base", .anywhere, in: folder) == folder.file("images/base"))
      #expect(try resolve("../secret", .anywhere, in: folder) == folder.file("images/../secret"))
    }
  }

  @Test func filePrefixIsForBackingFilesOnly() {
    for role in [ReferencePolicy.Role.dataFile, .extent, .parent] {
      #expect(throws: EngineError.self) {
        try ReferencePolicy.anywhere.resolve("file:base", for: role, namedBy: "/images/top")
      }
    }
  }

  @Test(arguments: ["", "a\0b", "nbd:x", "json:{}", "ssh://a/b", "unknown:x", "fat:rw:/etc"])
  func impossibleNamesAreRefused(_ name: String) {
    #expect(throws: EngineError.self) {
      try ReferencePolicy.anywhere.resolve(name, for: .backingFile, namedBy: "/images/top")
    }
  }

  /// Between a look at the name and the opening of the file another one can take its place.
  @Test func aDeviceThatTookTheNamesPlaceIsRefused() throws {
    let error = #expect(throws: EngineError.self) {
      try FileStore.open(FilePlace(named: "/dev/zero"), access: .readOnly, cache: .writeback)
    }
    #expect(error?.code == .forbidden)
    _ = try FileStore.open(FilePlace(path: "/dev/zero"), access: .readOnly, cache: .writeback)
  }

  /// Names are bytes: two that Swift takes for equal may be two images.
  @Test func onlyTheVeryImageIsTrusted() throws {
    let composed = "/images/\u{E9}", decomposed = "/images/e\u{301}"
    let policy = ReferencePolicy(.nowhere).trusting(composed)
    _ = try policy.resolve("base", for: .backingFile, namedBy: composed)
    #expect(throws: EngineError.self) { try policy.resolve("base", for: .backingFile, namedBy: decomposed) }
  }

  @Test func onlyAllowedFoldersAreEntered() throws {
    try withFiles { (folder) throws in
      let scope = ReferencePolicy.Scope.folders([try AllowedFolder(folder.file("images"))])
      #expect(try resolve("base", scope, in: folder) == folder.file("images/base"))
      #expect(try resolve("deep/base", scope, in: folder) == folder.file("images/deep/base"))
      #expect(try resolve("deep/../base", scope, in: folder) == folder.file("images/deep/../base"))
      for name in [
        "../secret", "../images-too/base", "/etc/passwd", folder.file("secret"), "deep/../../secret",
      ] {
        do throws(EngineError) {
          _ = try resolve(name, scope, in: folder)
          Issue.record("\(name) was allowed")
        } catch { #expect(error.code == .forbidden && error.message.contains(name), "\(error)") }
      }
    }
  }

  @Test func symbolicLinksOutOfTheFolderAreRefused() throws {
    try withFiles { (folder) throws in
      let manager = FileManager.default
      try manager.createSymbolicLink(atPath: folder.file("images/link"), withDestinationPath: "../secret")
      try manager.createSymbolicLink(atPath: folder.file("images/way-out"), withDestinationPath: "..")
      try manager.createSymbolicLink(atPath: folder.file("images/fine"), withDestinationPath: "deep/base")
      let scope = ReferencePolicy.Scope.folders([try AllowedFolder(folder.file("images"))])
      #expect(throws: EngineError.self) { try resolve("link", scope, in: folder) }
      #expect(throws: EngineError.self) { try resolve("way-out/secret", scope, in: folder) }
      // Names in it are relative to the link's folder, as everywhere.
      #expect(try resolve("fine", scope, in: folder) == folder.file("images/fine"))
    }
  }

  /// A name that is allowed, and then leads elsewhere: to a link, through a link, or to no file at all.
  @Test func whatIsSwappedBetweenCheckAndOpenIsNotOpened() throws {
    try withFiles { (folder) throws in
      let manager = FileManager.default
      let scope = ReferencePolicy.Scope.folders([try AllowedFolder(folder.file("images"))])
      let base = try place("base", scope, in: folder)
      let deep = try place("deep/base", scope, in: folder)
      _ = try FileStore.open(base, access: .readOnly, cache: .unflushed)
      try manager.removeItem(atPath: folder.file("images/base"))
      try manager.createSymbolicLink(atPath: folder.file("images/base"), withDestinationPath: "../secret")
      #expect(throws: EngineError.self) { try FileStore.open(base, access: .readOnly, cache: .unflushed) }
      #expect(HostFiles.identity(of: base) != HostFiles.identity(of: folder.file("secret")))
      try manager.removeItem(atPath: folder.file("images/deep"))
      try manager.createSymbolicLink(
        atPath: folder.file("images/deep"), withDestinationPath: "../images-too")
      #expect(throws: EngineError.self) { try FileStore.open(deep, access: .readOnly, cache: .unflushed) }
      try manager.removeItem(atPath: folder.file("images/deep"))
      #expect(throws: EngineError.self) { try FileStore.open(deep, access: .readOnly, cache: .unflushed) }
    }
  }

  /// A name that changes all the time between a file of the folder and a link to one outside of it.
  @Test func raceForANameNeverOpensWhatLiesOutside() throws {
    try withFiles { (folder) throws in
      try folder.write([2], to: "secret")
      try folder.write([1], to: "images/kept")
      try FileManager.default.createSymbolicLink(
        atPath: folder.file("images/link"), withDestinationPath: "../secret")
      let opener = ReferenceOpener(
        policy: ReferencePolicy(.folders([try AllowedFolder(folder.file("images"))])))
      let isDone = Atomic<Bool>(false)
      let (name, next) = (folder.file("images/name"), folder.file("images/next"))
      let swapper = Thread {
        while !isDone.load(ordering: .relaxed) {
          for source in ["images/kept", "images/link"] {
            _ = unsafe linkat(AT_FDCWD, folder.file(source), AT_FDCWD, next, 0)
            _ = unsafe rename(next, name)
            // A link to the file that is there already is taken away by hand.
            _ = unsafe unlink(next)
          }
        }
      }
      swapper.start()
      defer { isDone.store(true, ordering: .relaxed) }
      var (opened, refused) = (0, 0)
      let end = Date().addingTimeInterval(10)
      while opened < 300 || refused < 300, Date() < end {
        guard
          let file = try? opener.open(
            "name", for: .backingFile, namedBy: folder.file("images/top"), access: .readOnly, holding: nil)
        else {
          refused += 1
          continue
        }
        opened += 1
        #expect(try file.bytes(at: 0, count: 1) == [1])
      }
      #expect(opened > 0 && refused > 0)
    }
  }

  @Test func folderThatIsNotThereIsAnError() throws {
    try withFiles { (folder) throws in
      let missing = #expect(throws: EngineError.self) { try AllowedFolder(folder.file("gone")) }
      #expect(missing?.code == .notFound && missing?.message.contains("gone") == true)
      #expect(throws: EngineError.self) { try AllowedFolder(folder.file("secret")) }
      #expect(throws: EngineError.self) { try AllowedFolder("") }
    }
  }

  @Test func rootAllowsEverything() throws {
    try withFiles { (folder) throws in
      let scope = ReferencePolicy.Scope.folders([try AllowedFolder("/")])
      #expect(try resolve("../secret", scope, in: folder) == folder.file("images/../secret"))
    }
  }

  /// What the user's own image names he has named himself; what that names in turn he has not.
  @Test func ownImagesAreTrustedAndNoOthers() throws {
    try withFiles { (folder) throws in
      let own = folder.file("images/top.qcow2")
      let policy = ReferencePolicy(.folders([try AllowedFolder(folder.file("images"))])).trusting(own)
      _ = try policy.resolve("../secret", for: .backingFile, namedBy: own)
      #expect(throws: EngineError.self) {
        try policy.resolve("../secret", for: .backingFile, namedBy: folder.file("images/other"))
      }
    }
  }

  @Test func nowhereRefusesEveryName() throws {
    try withFiles { (folder) throws in
      #expect(throws: EngineError.self) { try resolve("base", .nowhere, in: folder) }
      #expect(throws: EngineError.self) { try resolve("/etc/passwd", .nowhere, in: folder) }
    }
  }

  @Test func missingFileInAnAllowedFolderIsNotFound() throws {
    try withFiles { (folder) throws in
      do throws(EngineError) {
        _ = try resolve("gone", .folders([try AllowedFolder(folder.file("images"))]), in: folder)
        Issue.record("it was found")
      } catch { #expect(error.code == .notFound) }
    }
  }

  @Test func openerThatOpensNothingIsHonouredByFormats() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "data_file=image.data", "image", "1M", folder: folder.path)
      try FileManager.default.removeItem(atPath: folder.file("image.data"))
      #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("image")) }
      var options = OpenOptions()
      options.isForInspection = true
      #expect(try ImageOpener.open(folder.file("image"), options).virtualSize == 1 << 20)
    }
  }
}
