import Testing

@testable import FormatEngine

@Suite struct XMLTreeTests {
  private func parse(_ text: String, _ limits: XMLLimits = XMLLimits()) throws(EngineError) -> XMLElement {
    try XMLElement.parse(Array(text.utf8), limits)
  }

  @Test func elementsTextAndAttributesAreRead() throws {
    let root = try parse(
      "<?xml version='1.0'?><a b='1' c='&lt;x&gt;'>one<d/> two<e><d f='2'>&amp;</d></e></a>")
    #expect(root.name == "a")
    #expect(root.attributes == ["b": "1", "c": "<x>"])
    #expect(root.text == "one two")
    #expect(root.children.map(\.name) == ["d", "e"])
    #expect(root.descendants("d").map(\.text) == ["", "&"])
    #expect(root.child("e")?.child("d")?.attributes == ["f": "2"])
  }

  @Test func aDocumentTypeThatNamesAnotherFileIsNotFetched() throws {
    let root = try parse(
      "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://localhost/none.dtd\"><plist/>")
    #expect(root.name == "plist")
  }

  @Test(arguments: [
    "", "<a>", "<a></b>", "no element", "<a/><b/>", "<a>\u{0}</a>",
    "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
    "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
    "<!DOCTYPE a [<!ATTLIST a b CDATA 'for every element'>]><a/>",
  ])
  func damagedDocumentsAreErrors(_ text: String) {
    #expect(throws: EngineError.self) { try parse(text) }
  }

  @Test func deepAndLargeDocumentsAreErrors() {
    let deep = String(repeating: "<a>", count: 10_000) + String(repeating: "</a>", count: 10_000)
    #expect(throws: EngineError.self) { try parse(deep) }
    let wide = "<a>" + String(repeating: "<b/>", count: 1000) + "</a>"
    #expect(throws: EngineError.self) { try parse(wide, XMLLimits(elementCount: 1000)) }
    #expect(throws: EngineError.self) { try parse("<a>1234567890</a>", XMLLimits(byteCount: 16)) }
  }

  @Test func attributesOfAllElementsTogetherAreLimited() throws {
    let tag = "<b " + (0..<100).map { "a\($0)=''" }.joined(separator: " ") + "/>"
    func document(_ count: Int) -> String { "<a>" + String(repeating: tag, count: count) + "</a>" }
    #expect(try parse(document(2000)).children.count == 2000)
    #expect(throws: EngineError.self) { try parse(document(2001)) }
  }

  /// expat keeps a tag whole; text it hands out.
  @Test func tagsAndCommentsHaveALengthAndTextHasNone() throws {
    let limits = XMLLimits(tagByteCount: 100_000)
    let (short, long) = (String(repeating: "x", count: 90_000), String(repeating: "x", count: 300_000))
    #expect(try parse("<a b='\(short)'/>", limits).attributes["b"] == short)
    #expect(throws: EngineError.self) { try parse("<a b='\(long)'/>", limits) }
    #expect(try parse("<!--\(short)--><a/>", limits).name == "a")
    #expect(throws: EngineError.self) { try parse("<!--\(long)--><a/>", limits) }
    #expect(try parse("<a>\(long)</a>", limits).text == long)
  }
}
