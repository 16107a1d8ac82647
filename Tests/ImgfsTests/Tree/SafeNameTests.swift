import Testing

@testable import imgfs

@Suite struct SafeNameTests {
  private func text(_ name: [UInt8]) -> String { String(decoding: name, as: UTF8.self) }
  private func unique(_ names: [String]) -> [String] { SafeName.unique(names).map(text) }

  @Test(arguments: ["daily", "before update 1.2", "Fähre", "日本", "-rf", ".hidden", "a~2", "100%", "a:b\\c"])
  func keepsWhatCanBeAFileName(_ name: String) {
    #expect(unique([name]) == [name])
  }

  /// Not as the test's arguments: the runner would print them.
  private static let hostile = [
    ("", "unnamed"), (".", "%2E"), ("..", "%2E%2E"), ("../../etc", "..%2F..%2Fetc"), ("a\0b", "a%00b"),
    ("line\nfeed", "line%0Afeed"), ("\u{1B}[31m", "%1B[31m"), ("\u{202E}gpj.exe", "%E2%80%AEgpj.exe"),
    ("zero\u{200B}width", "zero%E2%80%8Bwidth"), ("\u{2028}", "%E2%80%A8"), ("\u{7F}", "%7F"),
  ]

  @Test func escapesWhatCannot() {
    for (name, expected) in Self.hostile { #expect(unique([name]) == [expected]) }
  }

  @Test func numbersNamesThatAreThereAlready() {
    #expect(unique(["a", "a", "a"]) == ["a", "a~2", "a~3"])
    #expect(unique(["", "unnamed", ""]) == ["unnamed~2", "unnamed", "unnamed~3"])
  }

  @Test func givesASafeNameToTheFirstThatHasIt() {
    #expect(unique(["a", "a", "a~2"]) == ["a", "a~3", "a~2"])
    #expect(unique(["a/b", "a%2Fb"]) == ["a%2Fb~2", "a%2Fb"])
  }

  @Test func keepsNamesApartThatLookTheSame() {
    let names = SafeName.unique(["\u{E9}", "e\u{301}"])
    #expect(names == [Array("\u{E9}".utf8), Array("e\u{301}".utf8)])
  }

  @Test func cutsLongNamesBetweenCharacters() {
    let names = SafeName.unique([
      String(repeating: "ö", count: 32_768), String(repeating: "ö", count: 32_769),
    ])
    #expect(names[0] == Array(String(repeating: "ö", count: 127).utf8))
    #expect(names[1] == Array((String(repeating: "ö", count: 126) + "~2").utf8))
  }

  @Test func holdsItsPromisesForManyHostileNames() {
    var random = SystemRandomNumberGenerator()
    let pieces = [
      "/", "..", "\0", "\n", "a", "ß", "\u{202E}", "%", "~2", "", String(repeating: "x", count: 300),
    ]
    let names = (0..<2000).map { _ in
      (0..<Int.random(in: 0...3, using: &random)).map { _ in pieces.randomElement() ?? "" }.joined()
    }
    let safe = SafeName.unique(names)
    #expect(safe.count == names.count)
    #expect(Set(safe).count == safe.count)
    for name in safe {
      #expect(!name.isEmpty && name.count <= 255)
      #expect(!name.contains(0) && !name.contains(UInt8(ascii: "/")) && !name.contains { $0 < 32 })
      #expect(name != [46] && name != [46, 46])
      #expect(String(validating: name, as: UTF8.self) != nil)
    }
  }

  @Test func isQuickWithThousandsOfEqualNames() {
    let safe = SafeName.unique([String](repeating: "same", count: 65_536))
    #expect(safe.last.map(text) == "same~65536")
  }

  /// Long names whose ends differ are the same once a number takes the end's place.
  @Test func isQuickWithThousandsOfNamesThatAreCutToTheSame() {
    let names = (0..<4096).map { number in
      let end = String(number, radix: 16)
      return String(repeating: "n", count: 255 - 3) + String(repeating: "0", count: 3 - end.count) + end
    }
    var safe: [[UInt8]] = []
    let duration = ContinuousClock().measure { safe = SafeName.unique(names + names) }
    #expect(duration < .seconds(8))
    #expect(Set(safe).count == safe.count)
    #expect(safe.allSatisfy { $0.count == 255 })
    #expect(safe[..<4096].elementsEqual(names.map { Array($0.utf8) }))
    #expect(safe[4096] == Array((String(repeating: "n", count: 252) + "0~2").utf8))
    #expect(safe.last == Array((String(repeating: "n", count: 250) + "~3977").utf8))
    #expect(SafeName.unique(names + names) == safe)
  }

  /// Numbers that are in use already, with other counts of digits.
  @Test func numbersLongNamesBesideNumberedOnes() {
    let long = String(repeating: "n", count: 255)
    let numbered = (2...12).map { String(repeating: "n", count: $0 < 10 ? 253 : 252) + "~\($0)" }
    let safe = unique([long] + numbered + [long, long + "x", long])
    #expect(Set(safe).count == safe.count)
    #expect(safe.suffix(3) == (13...15).map { String(repeating: "n", count: 252) + "~\($0)" })
  }
}
