/// Which bytes of a dynamic disk's file are no blocks.
struct VPCMetadataMap {
  private(set) var ranges: [(name: String, range: Range<UInt64>)] = []

  /// `corrupt` where header and table lie over one another or over the footer's copy.
  init(
    _ footer: VPCFooter, _ header: VPCDynamicHeader, _ geometry: VPCGeometry, fileByteCount: UInt64
  ) throws(EngineError) {
    try add("the copy of the footer", 0, UInt64(VPCFooter.byteCount))
    try add("the dynamic disk header", footer.headerOffset, UInt64(VPCDynamicHeader.byteCount))
    try add(
      "the block allocation table", header.tableOffset,
      max(geometry.blockCount * 4, 1).aligned(upTo: VPCGeometry.sectorSize))
    guard footer.type == .differencing else { return }
    for locator in header.locators {
      // Paths are only read, so it does no harm where they lie over something else.
      guard let range = locator.range(inFileOf: fileByteCount) else { continue }
      ranges.append(("a parent locator", range))
    }
  }

  private mutating func add(_ name: String, _ start: UInt64, _ count: UInt64) throws(EngineError) {
    let range = start..<(try start.adding(count, orCorrupt: name))
    if let other = overlapping(range) {
      throw .corrupt("In the image, \(name) lies over \(other)", at: start)
    }
    ranges.append((name, range))
  }

  /// What of the metadata lies in `range`, nil where nothing does.
  func overlapping(_ range: Range<UInt64>) -> String? {
    ranges.first { $0.range.overlaps(range) }?.name
  }

  /// First byte after all of it.
  var end: UInt64 { ranges.map(\.range.upperBound).max() ?? 0 }
}
