import FormatEngine
import TestSupport
import Testing

/// Other programs read as many entries of the table as the header promises, whatever the disk needs.
@Suite struct VPCTableTests {
  private static let blockSize: UInt64 = 4096

  private func entryCount(_ bytes: [UInt8]) -> Int {
    bytes[540..<544].reduce(0) { $0 << 8 | Int($1) }
  }

  /// What the judge reads of an image; it refuses tables that are not all there, or have blocks in them.
  private func judged(_ bytes: [UInt8]) throws -> [UInt8] {
    try TemporaryFolder.with { folder in
      let image = try folder.write(bytes, to: "image.vhd")
      return try ReferenceTool.content(of: image, format: "vpc", in: folder)
    }
  }

  @Test func shrunkenDiskPromisesNoMoreEntriesThanItHas() throws {
    let store = MemoryStore(VPCImage().empty(byteCount: 1024 * Int(Self.blockSize)))
    let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    try chain.writeBytes([UInt8](repeating: 1, count: Int(Self.blockSize)), at: 1000 * Self.blockSize)
    try chain.resize(to: 10 * Self.blockSize)
    #expect(entryCount(store.snapshot) == 10)
    #expect(try judged(store.snapshot) == [UInt8](repeating: 0, count: 10 * Int(Self.blockSize)))
    // Where the table's end was there are blocks now.
    let content = (0..<10 * Int(Self.blockSize)).map { UInt8(truncatingIfNeeded: $0 / 512) | 1 }
    try chain.writeBytes(content, at: 0)
    try chain.close()
    #expect(try judged(store.snapshot) == content)
    try chain.resize(to: 2000 * Self.blockSize)
    try chain.close()
    #expect(entryCount(store.snapshot) == 2000)
    #expect(try judged(store.snapshot).prefix(content.count) == content[...])
  }

  /// A table that is longer than its disk needs stays whole when blocks behind it go.
  @Test func tableOfManyEntriesIsNotCutOff() throws {
    var bytes = VPCImage().empty(byteCount: 1024 * Int(Self.blockSize))
    let tableEnd = bytes.count - VPCImage.footerByteCount
    for start in [0, tableEnd] {
      bytes.put(bigEndian: 10 * Self.blockSize, at: start + 48)
      VPCImage.sealFooter(&bytes, at: start)
    }
    let store = MemoryStore(bytes)
    let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    #expect(chain.virtualSize == 10 * Self.blockSize)
    try chain.writeBytes([UInt8](repeating: 1, count: Int(Self.blockSize)), at: 0)
    try chain.discard(at: 0, count: Self.blockSize)
    try chain.close()
    #expect(try store.byteCount() == UInt64(bytes.count))
    #expect(try judged(store.snapshot) == [UInt8](repeating: 0, count: 10 * Int(Self.blockSize)))
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0 && report.leaks == 0, "\(report.findings)")
  }
}
