import FormatEngine
import Foundation
import TestSupport
import Testing

@testable import imgfs

/// What is told of long waits, and to whom.
@Suite struct WaitingLineTests {
  /// Runs work that takes `seconds`, and gives what a terminal showed meanwhile, and the work's result.
  private func shown(during seconds: Double, doing share: UInt64? = nil) throws -> (
    text: String, result: Int
  ) {
    var (terminal, reader): (CInt, CInt) = (-1, -1)
    #expect(unsafe openpty(&reader, &terminal, nil, nil, nil) == 0)
    defer { for descriptor in [terminal, reader] where descriptor >= 0 { close(descriptor) } }
    let result = WaitingLine.during("Working", on: terminal) { progress in
      if let share { try? progress.step(share, of: 1000) }
      usleep(UInt32(seconds * 1e6))
      return 7
    }
    // A terminal hands over what was written to it a moment later.
    var text: [UInt8] = []
    var waiting = pollfd(fd: reader, events: Int16(POLLIN), revents: 0)
    while unsafe poll(&waiting, 1, 200) > 0 {
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = unsafe read(reader, &bytes, bytes.count)
      guard count > 0 else { break }
      text += bytes[..<count]
    }
    return (String(decoding: text, as: UTF8.self), result)
  }

  @Test func countsSecondsAndIsWipedAway() throws {
    let shown = try shown(during: 2.5)
    #expect(shown.text == "\rimgfs: Working... 1 s\rimgfs: Working... 2 s\r\u{1B}[K")
    #expect(shown.result == 7)
  }

  @Test func saysHowFarTheWorkIs() throws {
    let shown = try shown(during: 1.5, doing: 429)
    #expect(shown.text == "\rimgfs: Working... 1 s, 42%\u{1B}[K\r\u{1B}[K")
  }

  @Test func saysNothingOfWhatIsQuick() throws {
    #expect(try shown(during: 0.3).text == "")
  }

  @Test func saysNothingWhereThereIsNoTerminal() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([], to: "file")
      let file = unsafe open(path, O_WRONLY | O_CLOEXEC)
      defer { close(file) }
      WaitingLine.during("Working", on: file) { _ in _ = usleep(1_200_000) }
      #expect(try Files.read(path).isEmpty)
    }
  }

  /// Its thread is gone, and so are its descriptors, also where the work fails.
  @Test func leavesNothing() throws {
    func count(_ what: String) throws -> Int {
      try FileManager.default.contentsOfDirectory(atPath: "/proc/self/\(what)").count
    }
    let before = try count("fd")
    for _ in 0..<50 {
      var (terminal, reader): (CInt, CInt) = (-1, -1)
      #expect(unsafe openpty(&reader, &terminal, nil, nil, nil) == 0)
      #expect(throws: EngineError.self) {
        try WaitingLine.during("Working", on: terminal) { (_) throws(EngineError) in throw .invalid("no") }
      }
      for descriptor in [terminal, reader] { close(descriptor) }
    }
    #expect(try count("fd") < before + 25)
  }
}

/// `imgfs --commit`, as far as it does not take an overlay.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct CommittingTests {
  @Test func refusesWhatHasNoOverlay() throws {
    try TemporaryFolder.with { folder in
      let result = try BuiltProduct.imgfs.run(["--commit", folder.path])
      #expect(result.status == 1)
      #expect(result.stderrText == "imgfs: '\(folder.path)' is not a mount point of imgfs\n")
      let image = try folder.write([UInt8](repeating: 1, count: 65_536), to: "disk.raw")
      try MountedImage.with(image, options: ["-F", "raw", "-o", "rw"], in: folder) { mount in
        let result = try BuiltProduct.imgfs.run(["--commit", mount.path])
        #expect(result.status == 1)
        #expect(
          result.stderrText.hasPrefix("imgfs: Could not fold the overlay of '\(mount.path)' into its image: ")
        )
      }
    }
  }
}
