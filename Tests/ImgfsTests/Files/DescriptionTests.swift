@testable import FormatEngine
import TestSupport
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

  @Test func mapThatTakesTooLongIsRefused() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", path, "8M")
      try ReferenceTool.io(
        stride(from: 0, to: 8192, by: 128).map { "write -P 1 \($0)k 64k" }, on: path, format: "qcow2")
      let chain = try ImageOpener.open(path)
      let text = try BuiltProduct.qemuImg.run(["map", "--output=json", path]).expecting().stdoutText
      #expect(try String(decoding: Description.map(of: chain), as: UTF8.self) == text)
      let error = #expect(throws: EngineError.self) { try Description.map(of: chain, seconds: 0) }
      #expect(error?.code == .tooLarge)
    }
  }

  @Test func textThatIsTooLargeIsTriedOnceUntilNobodyKnowsTheFileAnyMore() throws {
    let attempts = Guarded(0)
    let text = TextFile { () throws(EngineError) in
      attempts.withLock { $0 += 1 }
      throw EngineError(.tooLarge, "Too large")
    }
    for _ in 0..<3 { #expect(throws: EngineError.self) { try text.byteCount() } }
    #expect(attempts.withLock { $0 } == 1)
    text.release()
    #expect(throws: EngineError.self) { try text.content() }
    #expect(attempts.withLock { $0 } == 2)
  }

  /// Another failure may be over by the next time.
  @Test func textThatFailsIsTriedAgain() throws {
    let attempts = Guarded(0)
    let text = TextFile { () throws(EngineError) in
      let isFirst = attempts.withLock { attempts in
        attempts += 1
        return attempts == 1
      }
      if isFirst { throw EngineError(.system(errno: 5), "Input/output error") }
      return [7]
    }
    #expect(throws: EngineError.self) { try text.content() }
    #expect(try text.content() == [7])
  }
}
