/// What an image says of itself, read and found valid: everything but the BAT's entries.
struct VHDXImage: Sendable {
  var header: VHDXHeader
  /// Which of the two headers it is.
  var headerSlot: Int
  var regions: VHDXRegions
  var metadata: VHDXMetadata
  var bat: Range<UInt64>
  var metadataRegion: Range<UInt64>
  /// Places that hold no blocks: the start and the end of each, in turn.
  private var metadataBounds: [UInt64] = []

  /// A full disk of the largest size with its tables takes a little more than 64 TiB. A map of what is used in a file
  /// of this length takes 32 MiB.
  static let maximumFileByteCount = 256 * TiB

  /// `file`: with its log replayed.
  init(file: any ByteStore, header: VHDXHeader, slot: Int) throws(EngineError) {
    let byteCount = try file.byteCount()
    self.header = header
    headerSlot = slot
    regions = try VHDXRegions.read(from: file)
    try regions.validate(log: header.logRange, fileByteCount: byteCount)
    bat = try regions.region(VHDXRegions.bat, "BAT")
    metadataRegion = try regions.region(VHDXRegions.metadata, "metadata")
    metadata = try VHDXMetadata.read(from: file, in: metadataRegion)
    let needed = metadata.geometry.entryCount * 8
    guard needed <= UInt64(bat.count) else {
      throw .corrupt("The VHDX BAT has \(bat.count) bytes and the disk needs \(needed)")
    }
    noteRegions()
  }

  /// Whether host bytes belong to the header section, the log or a region. Every read comes by here, so that nothing is
  /// made for it.
  func isMetadata(_ range: Range<UInt64>) -> Bool {
    let (start, end) = (range.lowerBound, range.upperBound)
    // Plain numbers by their index: ranges in a loop are made on the heap where nothing is optimized.
    var index = 0
    while index + 1 < metadataBounds.count {
      if start < metadataBounds[index + 1] && metadataBounds[index] < end { return true }
      index += 2
    }
    return false
  }

  /// After a change of the regions.
  mutating func noteRegions() {
    let places = [0..<MiB, header.logRange] + regions.entries.map(\.range)
    metadataBounds = places.flatMap { [$0.lowerBound, $0.upperBound] }
  }
}
