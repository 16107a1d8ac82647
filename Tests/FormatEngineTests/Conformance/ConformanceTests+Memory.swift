import CAllocationCounter
import FormatEngine
import TestSupport
import Testing

extension ConformanceTests {
  /// Reading what was read before asks the heap for nothing. Packed clusters are unpacked into buffers of
  /// a cache, so they are left out.
  @Test(.enabled(if: imgfs_counts_allocations()), arguments: ConformanceRow.all)
  func warmReadAllocatesNothing(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let chain = try fixture.open()
      let buffer = AlignedBuffer(byteCount: Int(64 * KiB))
      var (measured, packed) = (0, 0)
      for offset in stride(from: 0, through: chain.virtualSize - 64 * KiB, by: Int(64 * KiB)) {
        if try chain.hasPackedBytes(offset..<offset + 64 * KiB) {
          packed += 1
          continue
        }
        unsafe try chain.read(into: buffer.bytes, at: offset)
        let before = imgfs_allocation_count()
        unsafe try chain.read(into: buffer.bytes, at: offset)
        let count = imgfs_allocation_count() - before
        #expect(count == 0, "at \(offset)")
        measured += 1
      }
      // Some formats pack all that they hold.
      #expect(measured > 0 || (!row.isWritable && packed > 0))
    }
  }

  /// Nothing of a chain that nobody uses any more stays: neither its files nor their memory.
  @Test(arguments: ConformanceRow.all)
  func chainThatIsLetGoClosesItsFiles(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      do {
        let chain = try fixture.open(row.isWritable ? .readWrite : .readOnly)
        _ = try chain.readBytes(at: 0, count: 4096)
        if row.isWritable { try chain.writeBytes([1, 2, 3], at: 5000) }
        if let keeping = chain.top as? any SnapshotKeeping, let record = try keeping.snapshots().first {
          _ = try keeping.openSnapshot(record).extent(at: 0, limit: 512)
        }
        if let checkable = chain.top as? any Checkable { _ = try checkable.check(progress: .none) }
        try chain.flush()
        #expect(!fixture.folder.openFiles().isEmpty)
      }
      #expect(fixture.folder.openFiles().isEmpty)
    }
  }

  @Test(.enabled(if: imgfs_counts_allocations())) func allocationsAreCounted() {
    let before = imgfs_allocation_count()
    let bytes = imgfs_allocated_byte_count()
    let buffer = AlignedBuffer(byteCount: 10_000)
    #expect(buffer.byteCount == 10_000)
    #expect(imgfs_allocation_count() > before)
    #expect(imgfs_allocated_byte_count() >= bytes + 10_000)
  }
}

extension ImageChain {
  fileprivate func hasPackedBytes(_ range: Range<UInt64>) throws(EngineError) -> Bool {
    var position = range.lowerBound
    while position < range.upperBound {
      let found = try extent(at: position, limit: range.upperBound - position)
      if found.extent.source == .compressed { return true }
      position += found.extent.length
    }
    return false
  }
}
