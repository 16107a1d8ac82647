@testable import FormatEngine
import Testing

@Suite struct ImageNameTests {
  @Test(arguments: [
    ("plain", "plain"), ("/a/b", "/a/b"), ("./a:b", "./a:b"), ("/x:y", "/x:y"), ("file:a", "a"),
    ("file:/a/b", "/a/b"),
    ("file:a:b", "./a:b"), ("file:/a:b", "/a:b"), ("", ""),
  ])
  func plainNamesAreKept(_ name: String, _ path: String) throws {
    #expect(try ImageName.plainPath(name) == path)
  }

  /// One that makes one character of itself and the colon.
  @Test func aMarkAfterThePrefixIsPartOfTheName() throws {
    #expect(try Array(ImageName.plainPath("file:\u{301}x").utf8) == Array("\u{301}x".utf8))
    #expect(ImageName.devicePath(of: "host_device:\u{301}") == "\u{301}")
    #expect(ImageName.jsonText(of: "json:\u{301}") == "\u{301}")
  }

  @Test(arguments: ["nbd:x", "json:{\"a\":1}", "http://h/", "a:b", ":x", "C:\\image.vhd"])
  func namesOfProtocolsAreRefused(_ name: String) {
    #expect(throws: EngineError.self) { try ImageName.plainPath(name) }
  }

  @Test func messagesTellKnownProtocolsFromUnknown() {
    func message(_ name: String) -> String {
      do throws(EngineError) { return try ImageName.plainPath(name) } catch { return error.message }
    }
    #expect(message("nbd:x") == "Unknown protocol 'nbd': network protocols are not built in")
    #expect(message("what:x") == "Unknown protocol 'what'")
  }

  @Test(arguments: [
    ("b", "a", "b"), ("b", "/x/a", "/x/b"), ("/b", "/x/a", "/b"), ("../b", "x/a", "x/../b"),
    ("b", "/a", "/b"),
  ])
  func namesJoinTheirImagesFolder(_ name: String, _ path: String, _ result: String) {
    #expect(ImageName.join(name, toFolderOf: path) == result)
  }

  @Test func lastComponentIsAfterTheLastSlash() {
    #expect(ImageName.lastComponent(of: "/a/b") == "b")
    #expect(ImageName.lastComponent(of: "b") == "b")
    #expect(ImageName.lastComponent(of: "a/") == "")
  }
}
