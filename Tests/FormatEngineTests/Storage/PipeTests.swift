import TestSupport
import Testing

@testable import FormatEngine

/// Pipes as they are read and written.
@Suite struct PipeTests {
  private func read(_ reader: PipeReader, _ count: Int) throws -> [UInt8] {
    let buffer = AlignedBuffer(byteCount: count)
    let got = unsafe try reader.read(into: buffer.prefix(count))
    return unsafe Array(buffer.prefix(got))
  }

  @Test func bytesComeOnceWhateverWasLookedAt() throws {
    var random = SeededRandom(seed: 3)
    let bytes = random.bytes(300_000)
    try TestPipe.feeding(bytes, piece: 1000) { name in
      let reader = try PipeReader(name)
      #expect(try reader.peek(10) == Array(bytes[..<10]))
      #expect(try reader.peek(70_000) == Array(bytes[..<70_000]))
      #expect(reader.remainingByteCount == nil)
      #expect(try read(reader, 69_000) == Array(bytes[..<69_000]))
      #expect(try read(reader, 2000) == Array(bytes[69_000..<71_000]))
      #expect(try reader.skip(100_000) == 100_000)
      #expect(reader.position == 171_000)
      #expect(try reader.peek(200_000) == Array(bytes[171_000...]))
      #expect(reader.remainingByteCount == 129_000)
      #expect(try read(reader, 200_000) == Array(bytes[171_000...]))
      #expect(try reader.skip(1) == 0)
    }
  }

  @Test func whatIsPassedOverIsZeros() throws {
    let got = try TestPipe.collecting { name in
      let store = try PipeStore(name)
      try store.write(bytes: [1, 2], at: 3)
      try store.writeZeros(at: 10, count: 5, freeing: false)
      try store.write(bytes: [3], at: 3_000_000)
      #expect(try store.byteCount() == 3_000_001)
      #expect(throws: EngineError.self) { try store.write(bytes: [4], at: 3_000_000) }
      #expect(throws: EngineError.self) { try store.bytes(at: 0, count: 1) }
      #expect(throws: EngineError.self) { try store.resize(to: 5) }
    }
    var expected = [UInt8](repeating: 0, count: 3_000_001)
    (expected[3], expected[4], expected[3_000_000]) = (1, 2, 3)
    #expect(got == expected)
  }

  @Test func onlyPipesAreTakenForSuch() throws {
    try TemporaryFolder.with { folder in
      let file = try folder.write([1], to: "file")
      #expect(!HostPipe.isAt(file))
      #expect(!HostPipe.isAt(folder.path))
      #expect(!HostPipe.isAt(folder.file("missing")))
      #expect(!HostPipe.isAt("/dev/null"))
    }
    try TestPipe.feeding([]) { name in #expect(HostPipe.isAt(name)) }
  }

  /// Which formats can get their size later is known before an image is made.
  @Test func formatsThatGrowAreThoseWhoseLayersCanBeResized() throws {
    for format in FormatCatalog.all.compactMap({ $0 as? any CreatableFormat.Type })
    where format.name != "luks" {
      try TemporaryFolder.with { folder in
        var options = OptionValues(format.createOptions)
        options.set("size", to: .number(MiB))
        let path = folder.file("image")
        _ = try ImageCreator.create(path, format: format, options: options)
        let chain = try ImageOpener.open(path, OpenOptions(format: format.name, access: .readWrite))
        #expect((chain.top is any Resizable) == format.canGrow, "\(format.name)")
      }
    }
  }
}
