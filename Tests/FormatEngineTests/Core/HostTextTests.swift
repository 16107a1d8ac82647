import FormatEngine
import TestSupport
import Testing

/// Bytes of the host as text.
@Suite struct HostTextTests {
  @Test(
    arguments: [
      [], Array("plain".utf8), Array("größe 漢字 🂡".utf8), [0xFF], [0x61, 0xFF, 0x62], [0xC3], [0xC3, 0x28],
      [0xE2, 0x82], [0xF0, 0x9F, 0x82], [0xED, 0xA0, 0x80], [0xC0, 0x80], [0xF4, 0x90, 0x80, 0x80],
      // The private scalars themselves, their neighbours, and parts of them.
      Array("\u{10FE00}\u{10FEFF}\u{10FDFF}\u{10FF00}".utf8), [0xF4, 0x8F, 0xB8],
      [0xF4, 0x8F, 0xB8, 0x80, 0xFF],
    ] as [[UInt8]])
  func leadsBackToItsBytes(_ bytes: [UInt8]) {
    #expect(String(hostBytes: bytes).hostBytes == bytes)
  }

  @Test func randomBytesLeadBack() {
    var random = SeededRandom.fromEnvironment(or: 12)
    for _ in 0..<Effort.rounds(2000) {
      // Many of those bytes that private scalars are made of.
      let bytes = random.bytes(random.below(12)).map {
        random.oneIn(2) ? [0xF4, 0x8F, 0xB8, 0xBB, 0x80][Int($0) % 5] : $0
      }
      #expect(String(hostBytes: bytes).hostBytes == bytes, "\(bytes), \(random)")
    }
  }

  @Test func differentBytesAreDifferentText() {
    let inText = String(hostBytes: [0xFF])
    let forged = String(hostBytes: Array(inText.utf8))
    #expect(inText != forged)
    #expect(inText.unicodeScalars.count == 1 && forged.unicodeScalars.count == 4)
    #expect(String(hostBytes: Array("größe".utf8)) == "größe")
  }

  @Test func jsonHasNoBytesThatAreNoCharacters() {
    #expect(JSONText.quoted(String(hostBytes: [0x61, 0xFF, 0xFE])) == "\"a\\uFFFD\\uFFFD\"")
    #expect(JSONText.quoted("\u{10FFFD}🂡") == "\"\\uDBFF\\uDFFD\\uD83C\\uDCA1\"")
  }

  /// A private scalar that was decoded from something else is no byte: least of all the NUL at which a name ends.
  @Test func charactersAreNoBytes() throws {
    let character = "\u{10FE00}"
    let text = String(characters: "a\(character)b")
    #expect(text.hostBytes == Array("a\(character)b".utf8))
    #expect(String(characters: "plain") == "plain")
    guard case .text(let escaped) = try JSONParser.parse("\"a\\udbff\\ude00b\"") else {
      Issue.record("no text")
      return
    }
    #expect(escaped.hostBytes == text.hostBytes)
  }
}
