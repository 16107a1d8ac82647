import Testing

@testable import qemu_img

@Suite struct NumberTextTests {
  @Test(
    arguments: [
      (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "0.977 KiB"), (1023, "0.999 KiB"), (1024, "1 KiB"),
      (1536, "1.5 KiB"), (200_704, "196 KiB"), (1_022_976, "999 KiB"), (1_023_488, "1e+03 KiB"),
      (1_024_000, "0.977 MiB"),
      (1_048_576, "1 MiB"), (123_456_789, "118 MiB"), (1 << 40, "1 TiB"), (UInt64(Int64.max), "8 EiB"),
      (UInt64.max, "16 EiB"),
    ] as [(UInt64, String)])
  func sizesHaveThreeDigits(_ value: UInt64, _ text: String) {
    #expect(NumberText.size(value) == text)
  }

  @Test func columnsAreFilledUp() {
    #expect(NumberText.hexadecimalColumn(0) == "0               ")
    #expect(NumberText.hexadecimalColumn(65536) == "0x10000         ")
    #expect(NumberText.left("ab", 4) == "ab  ")
    #expect(NumberText.right("ab", 4) == "  ab")
    #expect(NumberText.right("abcde", 4) == "abcde")
    #expect(NumberText.zeroPadded(7, 3) == "007")
    #expect(NumberText.zeroPadded(1234, 3) == "1234")
  }

  @Test func fractionsHaveTwoDigits() {
    #expect(NumberText.fixed2(12.345) == "12.35" || NumberText.fixed2(12.345) == "12.34")
    #expect(NumberText.fixed2(100) == "100.00")
  }
}
