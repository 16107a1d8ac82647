@testable import FormatEngine
import Testing

@testable import imgfs

/// The texts of a tree are of a length that a process can hold.
@Suite struct DescriptionTests {
  private func info(nameByteCount: Int) -> ImageInfo {
    ImageInfo(
      filename: String(repeating: "n", count: nameByteCount), format: "raw", virtualSize: 512)
  }

  @Test func textsAreWrittenUpToTheLimitAndRefusedAboveIt() throws {
    let rest = try Description.text(of: info(nameByteCount: 0)).count
    let most = Description.maximumByteCount - rest
    let text = try Description.text(of: info(nameByteCount: most))
    #expect(text.count == Description.maximumByteCount && text.last == UInt8(ascii: "\n"))
    let error = #expect(throws: EngineError.self) { try Description.text(of: info(nameByteCount: most + 1)) }
    #expect(error?.code == .tooLarge)
  }
}
