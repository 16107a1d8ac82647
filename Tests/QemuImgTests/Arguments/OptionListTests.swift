import FormatEngine
import Testing

@testable import qemu_img

@Suite struct OptionListTests {
  private let schema = OptionSchema([
    .init("name", .text, "A name"), .init("size", .size, "A size"), .init("flag", .flag, "A flag"),
    .init("nothing", .text, "A name that begins with no"),
  ])

  private func values(_ lists: String...) throws -> [String] {
    var list = OptionList()
    for text in lists { try list.add(text) }
    var values = OptionValues(schema)
    try list.apply(to: &values)
    return values.shown.map { "\($0.name)=\($0.value)" }
  }

  @Test func readsNamesAndValues() throws {
    #expect(try values("name=a,size=1k") == ["name=a", "size=1024"])
    #expect(try values("name=a=b") == ["name=a=b"])
    #expect(try values("name=") == ["name="])
  }

  @Test func doubledCommaIsAComma() throws {
    #expect(try values("name=a,,b,size=1") == ["name=a,b", "size=1"])
    #expect(try values("name=a,,") == ["name=a,"])
  }

  @Test func laterOnesWin() throws {
    #expect(try values("size=1,size=2", "size=3") == ["size=3"])
  }

  @Test func nameAloneIsAFlag() throws {
    #expect(try values("flag") == ["flag=on"])
    #expect(try values("noflag") == ["flag=off"])
  }

  @Test(arguments: ["", ",", ",,", ",name=a", "name=a,", "name=a,,,"])
  func refusesWrongLists(_ text: String) {
    #expect(throws: VerbFailure.self) { try values(text) }
  }

  @Test(arguments: ["help", "?", "name=a,help", "help,name=a"])
  func findsTheCallForHelp(_ text: String) throws {
    var list = OptionList()
    try list.add(text)
    #expect(list.asksForHelp)
  }

  @Test func helpAsAValueIsNoCall() throws {
    var list = OptionList()
    try list.add("name=help,nothing=a,,help")
    #expect(!list.asksForHelp)
  }
}
