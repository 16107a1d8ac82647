import Synchronization
import TestSupport
import Testing

@testable import FormatEngine
@testable import imgfs

/// What becomes of what a mount is opened with, and what may be asked of it.
@Suite struct MountContentTests {
  private func options(_ images: [String], _ overlay: MountOptions.Overlay? = nil) -> MountOptions {
    var options = MountOptions()
    (options.images, options.overlay) = (images, overlay)
    return options
  }

  private func ask(_ system: FileSystem, for name: String) -> String? {
    do throws(EngineError) {
      try system.setExtendedAttribute(name, of: NodeNumbers.root)
      return nil
    } catch { return error.message }
  }

  @Test func whatIsThrownAwayNeedNotGetOnDisk() throws {
    let failure = EngineError(.noSpace, "The disk is full")
    for (overlay, expected) in [
      (MountOptions.Overlay.temporary, nil), (.file("over"), failure.message), (nil, failure.message),
    ] {
      let requests = MountContent.requests(options(["a", "b"], overlay), isWritable: true, commit: nil) {
        () throws(EngineError) in throw failure
      }
      let request = try #require(requests[MountRequest.flushName])
      do throws(EngineError) { try request.run() } catch {}
      #expect(request.reason == expected)
    }
  }

  @Test func saysWhyThereIsNothingToAskFor() throws {
    try TemporaryFolder.with { folder in
      let images = try ["a.raw", "b.raw"].map { try folder.write([UInt8](repeating: 0, count: 512), to: $0) }
      for (overlay, answers) in [
        (nil, ["The mount has no overlay", "Nothing can be written through the mount"]),
        (MountOptions.Overlay.temporary, ["The overlays of several images cannot be folded in", nil]),
      ] {
        let options = options(images, overlay)
        let content = try MountContent.open(options, Opening(options, SecretStore()))
        let names = [MountRequest.commitName, MountRequest.flushName]
        #expect(names.map { ask(content.fileSystem, for: $0) } == answers)
        #expect(ask(content.fileSystem, for: "user.imgfs.format")?.contains("cannot be set") == true)
        try content.close()
      }
    }
  }

  /// Names in it begin no line.
  @Test func aReasonHasItsAdditionsInLinesOfTheirOwn() {
    let request = MountRequest { () throws(EngineError) in
      var error = EngineError.invalid("'a\nb' is in use")
      error.additions = ["By whom?"]
      throw error
    }
    do throws(EngineError) { try request.run() } catch {}
    #expect(request.reason == "'a\\u{a}b' is in use\nBy whom?")
  }

  private final class Listener: Sendable {}

  /// Nobody waits for what is opened later: the line that told of the waiting is gone.
  @Test(arguments: [1, 2], [MountOptions.Overlay.temporary, nil])
  func nobodyHearsOfLaterOpenings(_ count: Int, _ overlay: MountOptions.Overlay?) throws {
    try TemporaryFolder.with { folder in
      let images = try (0..<count).map {
        try folder.write([UInt8](repeating: 0, count: 512), to: "\($0).raw")
      }
      var options = options(images, overlay)
      options.format = "raw"
      weak var listener: Listener?
      let content = try {
        let strong = Listener()
        listener = strong
        let progress = Progress(report: { _, _ in withExtendedLifetime(strong) {} })
        return try MountContent.open(options, Opening(options, SecretStore()), progress)
      }()
      #expect(listener == nil)
      try content.close()
    }
  }
}
