import FormatEngine
import Testing

@Suite struct JSONTextTests {
  @Test func quotesAsQEMUDoes() {
    #expect(JSONText.quoted("q\u{1}\n\t\"\\\u{e9}\u{7f}") == #""q\u0001\n\t\"\\\u00E9\u007F""#)
    #expect(JSONText.quoted("\u{1F600}") == #""\uD83D\uDE00""#)
  }

  /// The order that Debian's qemu-img prints for the same keys.
  @Test func ordersKeysByHash() {
    let keys = [
      "filename", "format", "virtual-size", "dirty-flag", "actual-size", "cluster-size", "format-specific",
    ]
    let ordered = JSONText.ordered(keys.map { InfoField($0, .integer(0)) }).map(\.key)
    #expect(
      ordered == [
        "virtual-size", "filename", "cluster-size", "format", "actual-size", "format-specific", "dirty-flag",
      ])
  }

  @Test func indentsByFour() {
    let value = InfoValue.record([InfoField("a", .list([.integer(1), .record([])]))])
    #expect(JSONText.pretty(value) == "{\n    \"a\": [\n        1,\n        {\n        }\n    ]\n}")
    #expect(JSONText.pretty(.list([])) == "[\n]")
  }
}
