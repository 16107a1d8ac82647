import FormatEngine
import TestSupport
import Testing

@Suite struct SizeTextTests {
  @Test(
    arguments: [
      ("0", 0), ("512", 512), ("1k", 1 << 10), ("1K", 1 << 10), ("3M", 3 << 20), ("2g", 2 << 30),
      ("1T", 1 << 40),
      ("1P", 1 << 50), ("1E", 1 << 60), ("7b", 7), ("1.5k", 1536), ("0.5M", 1 << 19), (".5k", 512),
      ("0x200", 512),
      ("0X10", 16), ("+5", 5), (" 5", 5), ("1.0", 1), ("18446744073709551615", UInt64.max),
      ("15.5E", 31 << 59),
    ] as [(String, UInt64)])
  func sizeIsRead(_ text: String, _ bytes: UInt64) throws {
    #expect(try SizeText.parse(text) == bytes)
  }

  @Test(arguments: [
    "", "k", "x", "1x", "1kk", "1 k", "1.5", "1.5b", "0x", "0xg", "1..5k", "1e3", "٣", "1,5k", "NaN", "inf",
  ])
  func nonsenseIsNoSize(_ text: String) {
    #expect(throws: SizeText.Failure.notASize) { try SizeText.parse(text) }
  }

  @Test(arguments: [
    "-1", "18446744073709551616", "16E", "99999999999999999999999", "0x10000000000000000",
    "15.9999999999999999999E",
    "16777216T",
  ])
  func tooMuchIsOutOfRange(_ text: String) {
    #expect(throws: SizeText.Failure.outOfRange) { try SizeText.parse(text) }
  }

  @Test func unitCountsNumbersWithoutASuffix() throws {
    #expect(try SizeText.parse("3", unit: 1 << 20) == 3 << 20)
    #expect(try SizeText.parse("3b", unit: 1 << 20) == 3)
  }

  @Test(
    arguments: [
      ("0", 0), ("10", 10), ("010", 8), ("0x10", 16), ("+1", 1), ("-1", UInt64.max), ("", nil), ("1k", nil),
      ("08", nil),
    ]
      as [(String, UInt64?)])
  func integersAreReadInTheirBase(_ text: String, _ value: UInt64?) {
    #expect(SizeText.parseInteger(text) == value)
  }

  @Test func optionErrorsAreTheJudges() throws {
    func failure(_ text: String) -> String? {
      do throws(EngineError) {
        _ = try SizeText.parseOption(text, name: "cluster_size")
        return nil
      } catch { return error.message }
    }
    let judge = try ReferenceTool.qemuImg.run([
      "create", "-f", "qcow2", "-o", "cluster_size=x", "/nowhere/x", "1M",
    ])
    let words = try #require(failure("x"))
    #expect(judge.stderrText.contains(words.split(separator: "\n")[0]), "\(judge.stderrText)")
    #expect(failure("99E") == "Value '99E' is out of range for parameter 'cluster_size'")
    #expect(failure("1M") == nil)
  }
}
