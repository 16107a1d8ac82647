/// Where in a sparse extent's file its header, descriptor, directories and tables are: no grain may be written there,
/// whatever a damaged entry says.
struct VMDKMetadataMap {
  /// Sectors at which regions begin, ascending, and where they end.
  private var starts: [UInt32] = []
  private var ends: [UInt32] = []
  /// Where two regions overlap, if any do: then nothing is to be written.
  private(set) var overlap: UInt64?

  /// The first byte behind all of them, if none overlap. The last table may end past the end of the file.
  var end: UInt64 { UInt64(ends.last ?? 0) * VMDKExtentLine.sectorByteCount }

  /// Reads the directories. `toleratingDamage`: tables that lie nowhere, or of which only one copy is there, are for a check to
  /// tell.
  init(_ tables: VMDKGrainTables, toleratingDamage: Bool = false) throws(EngineError) {
    let geometry = tables.geometry
    var regions: [Range<UInt64>] = [0..<geometry.headerByteCount]
    if !geometry.descriptor.isEmpty { regions.append(geometry.descriptor) }
    let directories = [geometry.directoryOffset] + (geometry.redundantDirectoryOffset.map { [$0] } ?? [])
    for directory in directories where geometry.directoryCount > 0 {
      regions.append(directory..<directory + geometry.directoryByteCount)
    }
    regions.reserveCapacity(Int(geometry.directoryCount) * directories.count + regions.count)
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
        regions.append(place..<place + geometry.tableByteCount)
      }
    }
    regions.sort { $0.lowerBound < $1.lowerBound }
    starts.reserveCapacity(regions.count)
    ends.reserveCapacity(regions.count)
    for region in regions {
      let (start, end) = Self.sectors(region)
      if let last = ends.last, last > start { overlap = overlap ?? region.lowerBound }
      starts.append(start)
      ends.append(end)
    }
  }

  /// A table that is new, behind all that was there.
  mutating func insert(_ region: Range<UInt64>) {
    let (start, end) = Self.sectors(region)
    let index = firstEnding(after: start)
    starts.insert(start, at: index)
    ends.insert(end, at: index)
  }

  func requireNone(at hostOffset: UInt64, byteCount: UInt64) throws(EngineError) {
    guard firstRegion(in: hostOffset..<hostOffset + byteCount) == nil else {
      throw .corrupt("A grain lies in tables of the VMDK extent, at 0x\(hex(hostOffset))", at: hostOffset)
    }
  }

  /// Where the first region begins of which something lies in `range`.
  func firstRegion(in range: Range<UInt64>) -> UInt64? {
    let (start, end) = Self.sectors(range)
    let index = firstEnding(after: start)
    guard index < starts.count, starts[index] < end else { return nil }
    return UInt64(starts[index]) * VMDKExtentLine.sectorByteCount
  }

  /// The first region that ends after a sector.
  private func firstEnding(after sector: UInt32) -> Int {
    var (low, high) = (0, ends.count)
    while low < high {
      let middle = (low + high) / 2
      if ends[middle] <= sector { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private static func sectors(_ region: Range<UInt64>) -> (UInt32, UInt32) {
    let sector = VMDKExtentLine.sectorByteCount
    return (
      UInt32(clamping: region.lowerBound / sector),
      UInt32(clamping: region.upperBound.dividedRoundingUp(by: sector))
    )
  }
}
