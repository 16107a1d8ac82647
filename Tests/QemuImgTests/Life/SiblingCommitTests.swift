import TestSupport
import Testing

/// Two images over one parent, of the formats that record which state of it they are made over.
@Suite struct SiblingCommitTests {
  /// Who has nothing to commit changes nothing for the other.
  @Test(arguments: ["vmdk", "vhdx"]) func anEmptyCommitLeavesTheParentAsItWas(_ format: String) throws {
    try TemporaryFolder.with { folder in
      func run(_ words: String...) throws -> ProcessResult {
        try BuiltProduct.qemuImg.run(words, folder: folder.path)
      }
      try run("create", "-q", "-f", format, "base", "4M").expecting()
      for name in ["one", "two"] {
        try run("create", "-q", "-f", format, "-b", "base", "-F", format, name).expecting()
      }
      let before = try Files.read(folder.file("base"))
      try run("commit", "-q", "one").expecting()
      #expect(try Files.read(folder.file("base")) == before)
      try run("map", "two").expecting()
      // With something to write it is another parent.
      try run("convert", "-n", "-f", "raw", "-O", format, try folder.write([1, 2, 3], to: "bytes"), "one")
        .expecting()
      try run("commit", "-q", "one").expecting()
      #expect(try Files.read(folder.file("base")) != before)
      #expect(try run("map", "two").status != 0)
    }
  }
}
