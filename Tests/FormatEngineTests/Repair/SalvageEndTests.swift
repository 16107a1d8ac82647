import FormatEngine
import TestSupport
import Testing

/// What a salvage does where a file ends inside of a sector.
@Suite struct SalvageEndTests {
  /// Block 0 is cut off; what follows it on the disk, and lies before it in the file, is whole.
  @Test(arguments: [1, 100, 511, 3000, 8000]) func nextBlockIsSavedWhole(_ missing: Int) throws {
    let store = MemoryStore(VPCImage(blockSize: 8192).empty(byteCount: 4 * 8192))
    let writer = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    try writer.writeBytes([UInt8](repeating: 5, count: 8192), at: 8192)
    try writer.flush()
    try writer.writeBytes([UInt8](repeating: 6, count: 8192), at: 0)
    try writer.close()
    let source = try ImageChain.over(
      MemoryStore(Array(store.snapshot.dropLast(512 + missing))), format: VPCFormat.self)
    #expect(throws: EngineError.self) { try source.readBytes(at: 8191, count: 1) }
    let target = MemoryStore([UInt8](repeating: 0, count: 4 * 8192))
    var options = ConvertOptions()
    options.salvage = { _ in }
    try Converter.convert(
      from: [source], to: try ImageChain.over(target, format: RawFormat.self, access: .readWrite), options)
    #expect(target.snapshot[8192..<16384].holdsOnly(5))
    #expect(target.snapshot[..<(8192 - missing)].holdsOnly(6))
    #expect(target.snapshot[(8192 - missing)..<8192].isZero)
  }
}
