/// Where in a sparse extent's file its header, descriptor, directories and tables are: no grain may be written there,
/// whatever a damaged entry says.
struct VMDKMetadataMap {
  /// Sectors of the file.
  private struct Region {
    var start: UInt32
    var end: UInt32

    init(_ bytes: Range<UInt64>) {
      let sector = VMDKExtentLine.sectorByteCount
      start = UInt32(clamping: bytes.lowerBound / sector)
      end = UInt32(clamping: bytes.upperBound.dividedRoundingUp(by: sector))
    }
  }

  /// By their beginnings: there may be eight million.
  private var regions: [Region] = []
  /// Where two regions overlap, if any do: then nothing is to be written.
  private(set) var overlap: UInt64?

  /// The first byte behind all of them, if none overlap. The last table may end past the end of the file.
  var end: UInt64 { UInt64(regions.last?.end ?? 0) * VMDKExtentLine.sectorByteCount }

  /// Reads the directories. `toleratingDamage`: tables that lie nowhere, or of which only one copy is there, are for a check to
  /// tell.
  init(_ tables: VMDKGrainTables, toleratingDamage: Bool = false) throws(EngineError) {
    let geometry = tables.geometry
    regions.append(Region(0..<geometry.headerByteCount))
    if !geometry.descriptor.isEmpty { regions.append(Region(geometry.descriptor)) }
    let directories = [geometry.directoryOffset] + (geometry.redundantDirectoryOffset.map { [$0] } ?? [])
    for directory in directories where geometry.directoryCount > 0 {
      regions.append(Region(directory..<directory + geometry.directoryByteCount))
    }
    for copy in 0..<directories.count {
      if toleratingDamage, (try? tables.hasDirectory(copy)) != true { continue }
      for index in 0..<geometry.directoryCount {
        let place =
          toleratingDamage
          ? (try? tables.place(ofTable: index, copy: copy))?.offset
          : try tables.tableOffset(index, copy: copy)
        if copy > 0, !toleratingDamage {
          let primary = try tables.tableOffset(index, copy: 0)
          guard (place == nil) == (primary == nil) else {
            throw .corrupt("Only one of the grain directories has a table \(index)")
          }
        }
        guard let place else { continue }
        regions.append(Region(place..<place + geometry.tableByteCount))
      }
    }
    regions.sort { $0.start < $1.start }
    let pairs = zip(regions, regions.dropFirst())
    if let (_, second) = pairs.first(where: { $0.end > $1.start }) {
      overlap = UInt64(second.start) * VMDKExtentLine.sectorByteCount
    }
  }

  /// A table that is new, behind all that was there.
  mutating func insert(_ bytes: Range<UInt64>) {
    let region = Region(bytes)
    regions.insert(region, at: firstEnding(after: region.start))
  }

  func requireNone(at hostOffset: UInt64, byteCount: UInt64) throws(EngineError) {
    guard firstRegion(in: hostOffset..<hostOffset + byteCount) == nil else {
      throw .corrupt("A grain lies in tables of the VMDK extent, at 0x\(hex(hostOffset))", at: hostOffset)
    }
  }

  /// Where the first region begins of which something lies in `bytes`.
  func firstRegion(in bytes: Range<UInt64>) -> UInt64? {
    let range = Region(bytes)
    let index = firstEnding(after: range.start)
    guard index < regions.count, regions[index].start < range.end else { return nil }
    return UInt64(regions[index].start) * VMDKExtentLine.sectorByteCount
  }

  /// The first region that ends after a sector.
  private func firstEnding(after sector: UInt32) -> Int {
    var (low, high) = (0, regions.count)
    while low < high {
      let middle = (low + high) / 2
      if regions[middle].end <= sector { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
