import Synchronization

/// Compares what the tables refer to with what the file has, and mends what can be without a loss: entries that
/// lead out of the file are taken out, and what nothing uses at its end is cut off.
///
/// The format counts nothing, so this is all that can be known. It reads the file's own tables: nothing may wait to
/// be written, and it needs no lock.
struct QcowChecker {
  private let header: QcowHeader
  private let geometry: QcowGeometry
  private let file: any ByteStore
  /// Nil for a check that changes nothing.
  private let repairing: RepairMode?
  private let progress: Progress
  private let fileEnd: UInt64
  /// Sectors that belong to one cluster or table alone.
  private let whole: UnitBits
  /// Sectors in which there is anything: packed clusters share theirs.
  private let touched: UnitBits
  private var report = CheckReport()

  /// What clusters are aligned to, whatever their size.
  private static let sector: UInt64 = 512
  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 10_000

  init(_ prologue: QcowPrologue, file: any ByteStore, repairing: RepairMode?, progress: Progress)
    throws(EngineError)
  {
    header = prologue.header
    geometry = header.geometry
    self.file = file
    self.repairing = repairing
    self.progress = progress
    fileEnd = try file.byteCount()
    whole = try UnitBits(count: fileEnd.dividedRoundingUp(by: Self.sector))
    touched = try UnitBits(count: fileEnd.dividedRoundingUp(by: Self.sector))
  }

  mutating func run() throws(EngineError) -> CheckReport {
    report.totalClusters = header.virtualSize.dividedRoundingUp(by: geometry.clusterSize)
    for range in header.fixedRanges where !range.isEmpty { _ = touched.insert(Self.sectors(range)) }
    let walk = TableWalk(file, .bigEndian)
    try walk.forEachEntry(inTableAt: header.l1Offset, count: header.l1Count) {
      (index, raw) throws(EngineError) in
      try progress.step(index, of: header.l1Count)
      return try check(table: raw, index, walk)
    }
    guard report.checkErrors == 0 else { return report }
    let usedEnd = touched.end * Self.sector
    countLeaks(usedEnd)
    report.imageEndOffset = min(usedEnd, fileEnd)
    try cutOffFreeEnd(usedEnd)
    return report
  }

  /// False where the entry is to be taken out; so below.
  private mutating func check(table: UInt64, _ l1Index: UInt64, _ walk: TableWalk) throws(EngineError) -> Bool
  {
    guard isInFile(table, geometry.l2ByteCount) else {
      return outside("L2 table of L1 entry \(l1Index)", table)
    }
    // A table that stands in several entries is walked once.
    guard take(table, geometry.l2ByteCount, isPacked: !table.isAligned(to: Self.sector), "L2 table") else {
      return true
    }
    let firstCluster = l1Index << geometry.l2Bits
    var last: UInt64 = 0
    do throws(EngineError) {
      try walk.forEachEntry(inTableAt: table, count: 1 << geometry.l2Bits) {
        (index, raw) throws(EngineError) in
        check(QcowEntry(raw: raw, geometry), cluster: firstCluster + index, after: &last)
      }
    } catch {
      guard error.code != .cancelled else { throw error }
      report.checkErrors += 1
      note("ERROR: L2 table at 0x\(hex(table)): \(error.message)")
    }
    return true
  }

  private mutating func check(_ entry: QcowEntry, cluster: UInt64, after last: inout UInt64) -> Bool {
    switch entry {
    case .unallocated: return true
    case .cluster(let host):
      guard host.isAligned(to: Self.sector) else {
        report.corruptions += 1
        note("ERROR cluster \(cluster): offset 0x\(hex(host)) is not aligned")
        return true
      }
      guard isInFile(host, geometry.clusterSize) else { return outside("cluster \(cluster)", host) }
      report.allocatedClusters += 1
      if last != 0, host != last &+ geometry.clusterSize { report.fragmentedClusters += 1 }
      last = host
      _ = take(host, geometry.clusterSize, isPacked: false, "cluster \(cluster)")
    case .packed(let host, let byteCount):
      guard byteCount > 0, isInFile(host, byteCount) else {
        return outside("compressed cluster \(cluster)", host)
      }
      report.allocatedClusters += 1
      report.compressedClusters += 1
      // Packed clusters are fragments by nature.
      report.fragmentedClusters += 1
      _ = take(host, byteCount, isPacked: true, "compressed cluster \(cluster)")
    }
    return true
  }

  private func isInFile(_ hostOffset: UInt64, _ byteCount: UInt64) -> Bool {
    hostOffset >= UInt64(QcowHeader.byteCount) && hostOffset < fileEnd
      && hostOffset <= maximumFileOffset - byteCount
  }

  private mutating func outside(_ what: String, _ hostOffset: UInt64) -> Bool {
    note(
      "\(repairing == .all ? "Repairing" : "ERROR") \(what): offset 0x\(hex(hostOffset)) does not lie in the file"
    )
    if repairing == .all {
      report.corruptionsFixed += 1
      return false
    }
    report.corruptions += 1
    return true
  }

  /// Notes bytes as used; where others use them already it is a corruption, and the answer is false.
  private mutating func take(
    _ hostOffset: UInt64, _ byteCount: UInt64, isPacked: Bool, _ what: @autoclosure () -> String
  )
    -> Bool
  {
    let range = hostOffset..<hostOffset + byteCount
    let sectors = Self.sectors(range)
    var isShared = header.fixedRanges.contains { $0.overlaps(range) }
    if isPacked {
      // How packed bytes lie inside a sector they share is not looked at.
      if sectors.contains(where: { whole[$0] }) { isShared = true }
      _ = touched.insert(sectors)
    } else {
      if touched.insert(sectors) > 0 { isShared = true }
      _ = whole.insert(sectors)
    }
    if isShared {
      report.corruptions += 1
      note("ERROR \(what()): offset 0x\(hex(hostOffset)) is in use by something else, too")
    }
    return !isShared
  }

  private static func sectors(_ range: Range<UInt64>) -> Range<UInt64> {
    range.lowerBound / sector..<range.upperBound.dividedRoundingUp(by: sector)
  }

  /// Whole clusters at the end of the file in which there is nothing. What is unused in front of them - packed clusters
  /// leave it when they are written again - the format has no way to use, so it is not told of.
  private mutating func countLeaks(_ usedEnd: UInt64) {
    let clusterEnd = usedEnd.aligned(upTo: geometry.clusterSize)
    guard clusterEnd < fileEnd else { return }
    report.leaks = (fileEnd - clusterEnd) / geometry.clusterSize
    if report.leaks > 0 {
      note("Leaked \(report.leaks) clusters at the end of the file that nothing refers to")
    }
  }

  private mutating func cutOffFreeEnd(_ usedEnd: UInt64) throws(EngineError) {
    guard repairing != nil, report.corruptions == 0 else { return }
    try file.flush()
    guard report.leaks > 0 else { return }
    try file.resize(to: usedEnd)
    try file.flush()
    report.leaksFixed = report.leaks
    report.leaks = 0
  }

  private mutating func note(_ words: String) {
    if report.findings.count < Self.maximumFindings { report.findings.append(words) }
  }

  private func hex(_ number: UInt64) -> String { String(number, radix: 16) }
}

extension QcowLayer: Repairable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    var checker = try QcowChecker(
      try QcowPrologue.read(from: file), file: file, repairing: nil, progress: progress)
    return try checker.run()
  }

  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    var checker = try QcowChecker(
      try QcowPrologue.read(from: file), file: file, repairing: mode, progress: progress)
    let report = try checker.run()
    // Nothing that is known of the tables is sure to be so any more.
    try state.withLock { (state) throws(EngineError) in try state.startAfresh() }
    return report
  }
}
