/// Checks a space-efficient sparse extent: that tables and grains are where they can be, and each table only once. Nothing
/// is mended.
struct VMDKSESparseChecker {
  private let geometry: VMDKSESparseGeometry
  private let map: VMDKSESparseExtent
  /// Of the extent's first byte on the disk.
  private let guestStart: UInt64
  /// Numbers of tables: only those in the file get here.
  private var usedTables: Set<UInt64> = []
  private(set) var report = CheckReport()

  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 100_000

  init(_ geometry: VMDKSESparseGeometry, file: any ByteStore, guestStart: UInt64) throws(EngineError) {
    self.geometry = geometry
    self.guestStart = guestStart
    map = try VMDKSESparseExtent(geometry, file: file, cacheByteCount: MiB)
  }

  mutating func run(_ progress: Progress, total: UInt64) throws(EngineError) {
    for index in 0..<geometry.tableCount {
      let start = index * VMDKSESparseGeometry.tableCoverage
      try progress.step(min(guestStart + start, total), of: total)
      do throws(EngineError) {
        guard let table = try map.table(at: index) else { continue }
        guard usedTables.insert(table).inserted else {
          corruption("ERROR: the grain table for sector \(sector(start)) is that of another sector, too")
          continue
        }
      } catch {
        corruption("ERROR: could not get cluster_offset for sector \(sector(start))")
        continue
      }
      checkGrains(from: start, to: min(start + VMDKSESparseGeometry.tableCoverage, geometry.byteCount))
    }
  }

  private mutating func checkGrains(from start: UInt64, to end: UInt64) {
    var position = start
    while position < end {
      do throws(EngineError) {
        position += try map.extent(at: position, limit: end - position).length
      } catch {
        corruption("ERROR: could not get cluster_offset for sector \(sector(position))")
        position += VMDKSESparseGeometry.grainSize
      }
    }
  }

  private func sector(_ offset: UInt64) -> UInt64 { (guestStart + offset) / VMDKExtentLine.sectorByteCount }

  private mutating func corruption(_ words: String) {
    report.corruptions += 1
    if report.findings.count < Self.maximumFindings { report.findings.append(words) }
  }
}
