import FormatEngine
import TestSupport
import Testing

/// JSON on command lines and in images: what is taken, and that nothing hostile traps.
@Suite struct JSONParserTests {
  private func parsed(_ text: String) -> JSONValue? { try? JSONParser.parse(text) }

  private func failure(_ bytes: [UInt8]) -> String? {
    do throws(EngineError) {
      _ = try JSONParser.parse(bytes)
      return nil
    } catch { return error.message }
  }

  @Test func valuesOfEveryKind() {
    let text = #" { "a" : [ 1 , -2.5e+3, true, false, null, "x" ] , "b" : { } , "c" : [ ] } "#
    let list: [JSONValue] = [
      .number("1"), .number("-2.5e+3"), .flag(true), .flag(false), .null, .text("x"),
    ]
    #expect(
      parsed(text)
        == .record([
          JSONMember("a", .list(list)), JSONMember("b", .record([])), JSONMember("c", .list([])),
        ]))
  }

  @Test func escapesInStrings() {
    #expect(parsed(#""\"\\\/\b\f\n\r\t""#) == .text("\"\\/\u{8}\u{C}\n\r\t"))
    #expect(parsed(#""\u00e4\uD83D\uDE00""#) == .text("ä😀"))
    #expect(parsed(#"'it\'s "so"'"#) == .text("it's \"so\""))
    #expect(parsed("\"ä😀\"") == .text("ä😀"))
  }

  @Test(arguments: [
    (#""\u0000""#, #"\u0000 is not a valid Unicode character"#),
    (#""\udc00""#, #"\udc00 is not a valid Unicode character"#),
    (#""\ud800\u0041""#, #"\ud800 is not a valid Unicode character"#),
    (#""\u12g4""#, "invalid hex escape in string"), (#""\u12"#, "invalid hex escape in string"),
    (#""\x""#, "invalid escape sequence"), (#""abc"#, "premature EOI"), (#""abc\"#, "premature EOI"),
    ("\"a\nb\"", "stray control character in a string"),
    (#"{"a":1,"a":2}"#, "duplicate key"), (#"{"a":1,"\u0061":2}"#, "duplicate key"),
    ("[1,]", "expecting value"), ("[1 2]", "expected separator in list"), ("[", "premature EOI"),
    ("[1", "premature EOI"), ("-", "stray '-'"), ("1.", "stray '1.'"), ("1e", "stray '1e'"),
    ("00", "stray '00'"), ("{1:2}", "key is not a string in object"), ("nul", "invalid keyword 'nul'"),
  ])
  func wrongText(_ text: String, _ message: String) {
    #expect(failure(Array(text.utf8)) == "JSON parse error, \(message)")
  }

  @Test func bytesThatAreNoUTF8() {
    for bytes: [UInt8] in [
      [0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82],
    ] {
      #expect(failure([0x22] + bytes + [0x22]) == "JSON parse error, invalid UTF-8 sequence in string")
      #expect(failure(bytes) != nil)
    }
  }

  @Test func depthAndLengthAreBounded() {
    let depth = 127
    #expect(parsed(String(repeating: "[", count: depth) + "0" + String(repeating: "]", count: depth)) != nil)
    for count in [129, 100_000] {
      #expect(
        failure(Array(repeating: UInt8(ascii: "["), count: count)) == "JSON nesting depth limit exceeded")
      let records = String(repeating: "{\"a\":", count: count)
      #expect(failure(Array(records.utf8)) == "JSON nesting depth limit exceeded")
    }
    #expect(failure(Array(repeating: 0x20, count: (1 << 20) + 1)) == "JSON text is too long")
  }

  @Test func hugeNumbersStayText() {
    let digits = String(repeating: "9", count: 10000)
    #expect(parsed("[\(digits),1e\(digits)]") == .list([.number(digits), .number("1e\(digits)")]))
  }

  /// Valid text cut off, and with bytes changed, gives a value or an error.
  @Test func damagedTextNeverTraps() {
    let text = Array(
      #"{"driver":"qcow2","file":{"name":"\u00e4\n'","x":[-1.5e3,null,{"y":[[]]}]},'z':true}"#.utf8)
    #expect(failure(text) == nil)
    for end in 0..<text.count { #expect(failure(Array(text[..<end])) != nil) }
    var random = SeededRandom.fromEnvironment(or: 77)
    for _ in 0..<5000 {
      var changed = text
      for _ in 0...random.below(4) {
        changed[random.below(text.count)] = UInt8(random.below(256))
      }
      _ = failure(changed)
    }
  }
}
