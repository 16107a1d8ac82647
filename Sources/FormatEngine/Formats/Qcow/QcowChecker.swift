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
  /// Sectors that belong to one thing alone, as it says, and to another one.
  private let shared: UnitBits
  /// Something else lies in the header, or in the L1 table.
  private var isHeaderShared = false
  /// Entries that lead out of the file.
  private var outsideCount: UInt64 = 0
  /// Where the last cluster or table ends that begins in the file.
  private var neededEnd: UInt64 = 0
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
    shared = try UnitBits(count: fileEnd.dividedRoundingUp(by: Self.sector))
  }

  mutating func run() throws(EngineError) -> CheckReport {
    report.totalClusters = header.virtualSize.dividedRoundingUp(by: geometry.clusterSize)
    for range in header.fixedRanges where !range.isEmpty { _ = touched.insert(Self.sectors(range)) }
    let walk = TableWalk(file, .bigEndian)
    try walk.forEachEntry(inTableAt: header.l1Offset, count: header.l1Count) {
      (index, raw) throws(EngineError) in
      try progress.step(index, of: header.l1Count)
      try check(table: raw, index, walk)
      return true
    }
    guard report.checkErrors == 0 else { return report }
    if repairing == .all, outsideCount > 0 { try mend(walk) }
    try checkEnd()
    let usedEnd = touched.end * Self.sector
    countLeaks(usedEnd)
    report.imageEndOffset = min(usedEnd, fileEnd)
    try cutOffFreeEnd(usedEnd)
    return report
  }

  private mutating func check(table: UInt64, _ l1Index: UInt64, _ walk: TableWalk) throws(EngineError) {
    guard isInFile(table, geometry.l2ByteCount) else {
      return outside("L2 table of L1 entry \(l1Index)", table)
    }
    // A table that stands in several entries is walked once.
    guard take(table, geometry.l2ByteCount, isPacked: !table.isAligned(to: Self.sector), "L2 table") else {
      return
    }
    let firstCluster = l1Index << geometry.l2Bits
    var last: UInt64 = 0
    do throws(EngineError) {
      try walk.forEachEntry(inTableAt: table, count: 1 << geometry.l2Bits) {
        (index, raw) throws(EngineError) in
        check(QcowEntry(raw: raw, geometry), cluster: firstCluster + index, after: &last)
        return true
      }
    } catch {
      guard error.code != .cancelled else { throw error }
      report.checkErrors += 1
      note("ERROR: L2 table at 0x\(hex(table)): \(error.message)")
    }
  }

  private mutating func check(_ entry: QcowEntry, cluster: UInt64, after last: inout UInt64) {
    switch entry {
    case .unallocated: return
    case .cluster(let host):
      guard host.isAligned(to: Self.sector) else {
        report.corruptions += 1
        note("ERROR cluster \(cluster): offset 0x\(hex(host)) is not aligned")
        return
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
  }

  private func isInFile(_ hostOffset: UInt64, _ byteCount: UInt64) -> Bool {
    hostOffset >= UInt64(QcowHeader.byteCount) && hostOffset < fileEnd
      && hostOffset <= maximumFileOffset - byteCount
  }

  private mutating func outside(_ what: @autoclosure () -> String, _ hostOffset: UInt64) {
    report.corruptions += 1
    outsideCount += 1
    // A repair tells of it when it knows what becomes of it.
    if repairing != .all { note("ERROR \(what()): offset 0x\(hex(hostOffset)) does not lie in the file") }
  }

  /// Takes out the entries that lead out of the file, of tables that are nothing but tables: the bytes of the others may be a
  /// guest's, whose entry somewhere says so.
  private mutating func mend(_ walk: TableWalk) throws(EngineError) {
    var walked: Set<UInt64> = []
    try walk.forEachEntry(inTableAt: header.l1Offset, count: header.l1Count) {
      (index, table) throws(EngineError) in
      try progress.step(index, of: header.l1Count)
      guard isInFile(table, geometry.l2ByteCount) else {
        return stays("L2 table of L1 entry \(index)", table, isHeaderShared)
      }
      guard walked.insert(table).inserted else { return true }
      try mend(l2At: table, firstCluster: index << geometry.l2Bits, walk)
      return true
    }
  }

  private mutating func mend(l2At table: UInt64, firstCluster: UInt64, _ walk: TableWalk) throws(EngineError)
  {
    let isShared = !isAlone(table)
    try walk.forEachEntry(inTableAt: table, count: 1 << geometry.l2Bits) { (index, raw) throws(EngineError) in
      switch QcowEntry(raw: raw, geometry) {
      case .unallocated: true
      case .cluster(let host):
        !host.isAligned(to: Self.sector) || isInFile(host, geometry.clusterSize)
          || stays("cluster \(firstCluster + index)", host, isShared)
      case .packed(let host, let byteCount):
        byteCount > 0 && isInFile(host, byteCount)
          || stays("compressed cluster \(firstCluster + index)", host, isShared)
      }
    }
  }

  /// Tells of an entry that leads out of the file, and whether it stays.
  private mutating func stays(_ what: @autoclosure () -> String, _ hostOffset: UInt64, _ isShared: Bool)
    -> Bool
  {
    note(
      "\(isShared ? "ERROR" : "Repairing") \(what()): offset 0x\(hex(hostOffset)) does not lie in the file")
    if !isShared {
      report.corruptions -= 1
      report.corruptionsFixed += 1
    }
    return isShared
  }

  private func isAlone(_ table: UInt64) -> Bool {
    guard table.isAligned(to: Self.sector) else { return false }
    return !Self.sectors(table..<table + geometry.l2ByteCount).contains { shared[$0] }
      && !header.fixedRanges.contains { $0.overlaps(table..<table + geometry.l2ByteCount) }
  }

  /// A table, or a cluster at an odd place, may reach over what the next writer takes for the end of the file: its new
  /// clusters would be part of it.
  private mutating func checkEnd() throws(EngineError) {
    guard neededEnd > fileEnd.aligned(upTo: geometry.clusterSize) else { return }
    guard repairing == .all, report.corruptions == 0, neededEnd - fileEnd <= Self.maximumGrowth else {
      report.corruptions += 1
      return note("ERROR the file ends at 0x\(hex(fileEnd)), inside of a table or a cluster")
    }
    try file.resize(to: neededEnd)
    report.corruptionsFixed += 1
    note("Repairing the file's end: it ended at 0x\(hex(fileEnd)), inside of a table or a cluster")
  }

  /// Tables have 64 KiB at most.
  private static let maximumGrowth = MiB

  /// Notes bytes as used; where others use them already it is a corruption, and the answer is false.
  private mutating func take(
    _ hostOffset: UInt64, _ byteCount: UInt64, isPacked: Bool, _ what: @autoclosure () -> String
  )
    -> Bool
  {
    let range = hostOffset..<hostOffset + byteCount
    let sectors = Self.sectors(range)
    var isShared = header.fixedRanges.contains { $0.overlaps(range) }
    if isShared { isHeaderShared = true }
    if !isPacked { neededEnd = max(neededEnd, range.upperBound) }
    // How packed bytes lie inside a sector they share is not looked at.
    for sector in sectors where isPacked ? whole[sector] : touched[sector] {
      isShared = true
      _ = shared.insert(sector..<sector + 1)
    }
    _ = touched.insert(sectors)
    if !isPacked { _ = whole.insert(sectors) }
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
