import FormatEngine
import Testing

@Suite struct FormatOptionsTests {
  private let schema = OptionSchema([
    .init("size", .size, "Size"), .init("bits", .number, "Bits", default: "16"),
    .init("lazy", .flag, "Lazy", default: "off"), .init("note", .text, "Note"),
  ])

  @Test func defaultsStandUntilAValueIsGiven() throws {
    var values = OptionValues(schema)
    #expect(values.number("bits") == 16 && values.flag("lazy") == false)
    #expect(values["note"] == nil && values["size"] == nil)
    #expect(!values.isGiven("bits"))
    try values.set("bits", to: "0x20")
    try values.set("size", to: "2k")
    #expect(values.number("bits") == 32 && values.number("size") == 2048 && values.isGiven("bits"))
    values.remove("bits")
    #expect(values.number("bits") == 16)
  }

  @Test(arguments: [
    ("on", true), ("yes", true), ("true", true), ("y", true), ("off", false), ("no", false), ("false", false),
    ("n", false),
  ])
  func flagsHaveManyNames(_ text: String, _ value: Bool) throws {
    var values = OptionValues(schema)
    try values.set("lazy", to: text)
    #expect(values.flag("lazy") == value)
  }

  @Test(arguments: [
    ("lazy", "maybe", "Parameter 'lazy' expects 'on' or 'off'"),
    ("bits", "x", "Parameter 'bits' expects a number"),
    ("other", "1", "Invalid parameter 'other'"),
    ("size", "-1", "Value '-1' is out of range for parameter 'size'"),
  ])
  func wrongValuesAreRefusedInTheJudgesWords(_ name: String, _ text: String, _ words: String) {
    var values = OptionValues(schema)
    do throws(EngineError) {
      try values.set(name, to: text)
      Issue.record("it was taken")
    } catch { #expect(error.code == .invalidArgument && error.message == words) }
  }

  @Test func shownValuesFollowTheSchema() throws {
    var values = OptionValues(schema)
    try values.set("note", to: "text")
    try values.set("lazy", to: "on")
    #expect(values.shown.map { "\($0.name)=\($0.value)" } == ["bits=16", "lazy=on", "note=text"])
  }
}
