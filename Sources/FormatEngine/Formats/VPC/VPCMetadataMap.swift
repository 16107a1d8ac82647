/// Which bytes of a dynamic disk's file are no blocks.
struct VPCMetadataMap {
  private struct Region {
    var name: StaticString
    var start: UInt64
    var end: UInt64
  }

  private var regions: [Region] = []
  /// First byte after all entries that the header promises, where the file has room for them. Those past the disk's
  /// end mean nothing here, but other programs read them all.
  private let promisedEnd: UInt64

  /// `corrupt` where header and table lie over one another or over the footer's copy.
  init(
    _ footer: VPCFooter, _ header: VPCDynamicHeader, _ geometry: VPCGeometry, fileByteCount: UInt64
  ) throws(EngineError) {
    let promised = header.tableOffset.addingReportingOverflow(
      (UInt64(header.entryCount) * 4).aligned(upTo: VPCGeometry.sectorSize))
    let contentEnd = fileByteCount - min(fileByteCount, UInt64(VPCFooter.byteCount - 1))
    promisedEnd = promised.overflow || promised.partialValue > contentEnd ? 0 : promised.partialValue
    try add("the copy of the footer", 0, UInt64(VPCFooter.byteCount))
    try add("the dynamic disk header", footer.headerOffset, UInt64(VPCDynamicHeader.byteCount))
    try add(
      "the block allocation table", header.tableOffset,
      max(geometry.blockCount * 4, 1).aligned(upTo: VPCGeometry.sectorSize))
    guard footer.type == .differencing else { return }
    for locator in header.locators {
      // Paths are only read, so it does no harm where they lie over something else.
      guard let range = locator.range(inFileOf: fileByteCount) else { continue }
      regions.append(Region(name: "a parent locator", start: range.lowerBound, end: range.upperBound))
    }
  }

  private mutating func add(_ name: StaticString, _ start: UInt64, _ count: UInt64) throws(EngineError) {
    let range = start..<(try start.adding(count, orCorrupt: "\(name)"))
    if let other = overlapping(range) {
      throw .corrupt("In the image, \(name) lies over \(other)", at: start)
    }
    regions.append(Region(name: name, start: range.lowerBound, end: range.upperBound))
  }

  /// What of the metadata lies in `range`, nil where nothing does. Every look-up of a block comes by here.
  func overlapping(_ range: Range<UInt64>) -> StaticString? {
    var index = 0
    while index < regions.count {
      if regions[index].start < range.upperBound && range.lowerBound < regions[index].end {
        return regions[index].name
      }
      index += 1
    }
    return nil
  }

  /// First byte after all of it.
  var end: UInt64 { max(promisedEnd, regions.map(\.end).max() ?? 0) }
}
