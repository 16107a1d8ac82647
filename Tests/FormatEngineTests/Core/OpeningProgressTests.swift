import TestSupport
import Testing

@testable import FormatEngine

/// What is told of the work of opening an image that its last writer did not close.
@Suite struct OpeningProgressTests {
  private final class Steps: Sendable {
    private let all = Guarded<[(done: UInt64, total: UInt64)]>([])
    var progress: Progress {
      Progress(report: { done, total in self.all.withLock { $0.append((done, total)) } })
    }
    func take() -> [(done: UInt64, total: UInt64)] {
      all.withLock { all in
        defer { all = [] }
        return all
      }
    }
  }

  /// Opens an image for writing twice: the first time it is mended.
  private func expectSteps(_ path: String, format: String) throws {
    let steps = Steps()
    var options = OpenOptions(format: format, access: .readWrite)
    options.progress = steps.progress
    try ImageOpener.open(path, options).close()
    let told = steps.take()
    #expect(!told.isEmpty, "\(format)")
    #expect(told.allSatisfy { $0.done <= $0.total && $0.total > 0 }, "\(format): \(told)")
    try ImageOpener.open(path, options).close()
    // A Parallels image is looked through each time, to find where there is room.
    if format != "parallels" { #expect(steps.take().isEmpty, "\(format)") }
  }

  /// `mark` stands at `offset` of an image that is open.
  @Test(arguments: [
    ("qcow2", 79, [UInt8(1)]), ("qed", 16, [2]), ("parallels", 44, Array("YNot".utf8)),
  ]) func checkTellsHowFarItIs(format: String, offset: Int, mark: [UInt8]) throws {
    try TemporaryFolder.with { folder in
      let raw = try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "disk.raw")
      let path = folder.file("image")
      try ReferenceTool.qemuImg.run(["convert", "-f", "raw", "-O", format, raw, path], folder: folder.path)
        .expecting(0)
      var bytes = try Files.read(path)
      bytes.replaceSubrange(offset..<offset + mark.count, with: mark)
      try Files.write(bytes, to: path)
      try expectSteps(path, format: format)
    }
  }

  @Test(.enabled(if: Samples.areHere)) func replayOfALogTellsHowFarItIs() throws {
    try TemporaryFolder.with { folder in
      try expectSteps(try Samples.unpack("log-replay.vhdx", into: folder), format: "vhdx")
    }
  }
}
