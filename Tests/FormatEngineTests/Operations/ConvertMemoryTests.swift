import TestSupport
import Testing

@testable import FormatEngine

/// What a thread of a conversion holds in memory does not grow with the blocks of the target.
@Suite struct ConvertMemoryTests {
  @Test func largeBlocksAreWrittenInPieces() throws {
    try TemporaryFolder.with { folder in
      let blockSize = 256 << 20
      let store = try FileStore.create(folder.file("target.vhdx"), emptying: true, cache: .unflushed)
      try VHDXBytes.new(blockSize, blockSize, 512).write(to: store)
      let target = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
      let source = try VHDXBytes(size: blockSize).open(.readWrite)
      let content = [UInt8](repeating: 5, count: 2 << 20)
      for start in [0, 31 << 20, 254 << 20] { try source.writeBytes(content, at: UInt64(start)) }
      var options = ConvertOptions()
      options.threadCount = 4
      #expect(
        try ConvertWork(ConcatenatedDisks([source]), target, options, .none).segmentByteCount <= 32 * MiB)
      try Converter.convert(from: [source], to: target, options)
      #expect(try Comparer.firstDifference(between: source, and: target, in: 0..<source.virtualSize) == nil)
      #expect(try target.readBytes(at: 254 << 20, count: content.count) == content)
    }
  }
}
