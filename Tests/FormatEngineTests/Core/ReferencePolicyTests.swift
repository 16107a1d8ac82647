import FormatEngine
import Foundation
import TestSupport
import Testing

/// Which files an image may name.
@Suite struct ReferencePolicyTests {
  private func resolve(_ name: String, _ scope: ReferencePolicy.Scope, in folder: TemporaryFolder)
    throws(EngineError)
    -> String
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

  @Test func onlyAllowedFoldersAreEntered() throws {
    try withFiles { (folder) throws in
      let scope = ReferencePolicy.Scope.folders([folder.file("images")])
      #expect(try resolve("base", scope, in: folder).hasSuffix("/images/base"))
      #expect(try resolve("deep/base", scope, in: folder).hasSuffix("/images/deep/base"))
      #expect(try resolve("deep/../base", scope, in: folder).hasSuffix("/images/base"))
      for name in [
        "../secret", "../images-too/base", "/etc/passwd", folder.file("secret"), "deep/../../secret",
      ] {
        do throws(EngineError) {
          _ = try resolve(name, scope, in: folder)
          Issue.record("\(name) was allowed")
        } catch { #expect(error.code == .permissionDenied && error.message.contains(name), "\(error)") }
      }
    }
  }

  @Test func symbolicLinksOutOfTheFolderAreRefused() throws {
    try withFiles { (folder) throws in
      let manager = FileManager.default
      try manager.createSymbolicLink(atPath: folder.file("images/link"), withDestinationPath: "../secret")
      try manager.createSymbolicLink(atPath: folder.file("images/way-out"), withDestinationPath: "..")
      try manager.createSymbolicLink(atPath: folder.file("images/fine"), withDestinationPath: "deep/base")
      let scope = ReferencePolicy.Scope.folders([folder.file("images")])
      #expect(throws: EngineError.self) { try resolve("link", scope, in: folder) }
      #expect(throws: EngineError.self) { try resolve("way-out/secret", scope, in: folder) }
      #expect(try resolve("fine", scope, in: folder).hasSuffix("/images/deep/base"))
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
        _ = try resolve("gone", .folders([folder.file("images")]), in: folder)
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
