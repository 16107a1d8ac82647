import Synchronization

/// Compares what the tables refer to with what the file has (qed_spec.txt, "Consistency checking"), and mends what
/// can be: entries that lead out of the file are taken out, clusters at its end that nothing uses are cut off.
///
/// It reads the file's own tables, so nothing may wait to be written, and it needs no lock.
struct QEDChecker {
  private var header: QEDHeader
  private let geometry: QEDGeometry
  private let file: any ByteStore
  /// Nil for a check that changes nothing.
  private let repairing: RepairMode?
  private let progress: Progress
  /// Of whole clusters, as readers take it.
  private let fileEnd: UInt64
  /// Clusters of the file that something refers to; and, for a repair, those to which more than one thing does.
  private let used: UnitBits
  private let shared: UnitBits
  /// Entries that cannot be true.
  private var invalidCount: UInt64 = 0
  private var report = CheckReport()

  init(_ prologue: QEDPrologue, file: any ByteStore, repairing: RepairMode?, progress: Progress)
    throws(EngineError)
  {
    header = prologue.header
    geometry = header.geometry
    self.file = file
    self.repairing = repairing
    self.progress = progress
    fileEnd = geometry.end(ofFileOf: try file.byteCount())
    used = try UnitBits(count: fileEnd / geometry.clusterSize)
    shared = try UnitBits(count: repairing == .all ? fileEnd / geometry.clusterSize : 0)
  }

  mutating func run() throws(EngineError) -> CheckReport {
    report.totalClusters = header.virtualSize.dividedRoundingUp(by: geometry.clusterSize)
    _ = used.insert(0..<UInt64(header.headerClusters))
    use(header.l1Offset, clusters: geometry.tableClusters)
    let walk = TableWalk(file, .littleEndian)
    try walk.forEachEntry(inTableAt: header.l1Offset, count: geometry.entryCount) {
      (index, offset) throws(EngineError) in
      try progress.step(index, of: geometry.entryCount)
      try check(table: offset, walk)
      return true
    }
    guard report.checkErrors == 0 else { return report }
    if repairing == .all, invalidCount > 0 { try mend(walk) }
    report.leaks = used.clearCount(in: UInt64(header.headerClusters)..<used.count)
    try finishRepair()
    return report
  }

  private mutating func check(table: UInt64, _ walk: TableWalk) throws(EngineError) {
    guard header.holdsTable(at: table, fileEnd: fileEnd) else { return countInvalid() }
    // A table that stands in several entries is walked once.
    guard use(table, clusters: geometry.tableClusters) else { return }
    var last: UInt64 = 0
    do throws(EngineError) {
      try walk.forEachEntry(inTableAt: table, count: geometry.entryCount) { (_, offset) throws(EngineError) in
        check(cluster: offset, after: &last)
        return true
      }
    } catch {
      guard error.code != .cancelled else { throw error }
      report.checkErrors += 1
      report.findings.append("ERROR: L2 table at 0x\(String(table, radix: 16)): \(error.message)")
    }
  }

  private mutating func check(cluster: UInt64, after last: inout UInt64) {
    if case .zeros = QEDEntry(raw: cluster) { return }
    report.allocatedClusters += 1
    if last != 0, cluster != last &+ geometry.clusterSize { report.fragmentedClusters += 1 }
    last = cluster
    guard header.holdsCluster(at: cluster, fileEnd: fileEnd) else { return countInvalid() }
    use(cluster, clusters: 1)
  }

  private mutating func countInvalid() {
    report.corruptions += 1
    invalidCount += 1
  }

  /// Takes out the entries that cannot be true, of tables that are nothing but tables: the bytes of the others may be a
  /// guest's, whose entry somewhere says so.
  private mutating func mend(_ walk: TableWalk) throws(EngineError) {
    let isL1Alone = isAlone(header.l1Offset)
    try walk.forEachEntry(inTableAt: header.l1Offset, count: geometry.entryCount) {
      (index, table) throws(EngineError) in
      try progress.step(index, of: geometry.entryCount)
      guard header.holdsTable(at: table, fileEnd: fileEnd) else { return !isL1Alone || takenOut() }
      guard isAlone(table) else { return true }
      try walk.forEachEntry(inTableAt: table, count: geometry.entryCount) {
        (_, cluster) throws(EngineError) in
        if case .zeros = QEDEntry(raw: cluster) { return true }
        return header.holdsCluster(at: cluster, fileEnd: fileEnd) || takenOut()
      }
      return true
    }
  }

  /// Counts an entry as mended; it does not stay.
  private mutating func takenOut() -> Bool {
    report.corruptions -= 1
    report.corruptionsFixed += 1
    return false
  }

  private func isAlone(_ table: UInt64) -> Bool {
    let first = table / geometry.clusterSize
    return shared.clearCount(in: first..<first + geometry.tableClusters) == geometry.tableClusters
  }

  /// Notes clusters as used; those that were before are corruptions, and the answer is false.
  @discardableResult
  private mutating func use(_ hostOffset: UInt64, clusters: UInt64) -> Bool {
    let first = hostOffset / geometry.clusterSize
    let range = first..<first + clusters
    if repairing == .all, used.clearCount(in: range) < clusters {
      for cluster in range where used[cluster] { _ = shared.insert(cluster..<cluster + 1) }
    }
    let repeated = used.insert(range)
    report.corruptions += repeated
    return repeated == 0
  }

  /// Gives back the clusters at the end, and takes off the mark of an image that was not closed.
  private mutating func finishRepair() throws(EngineError) {
    guard repairing != nil, report.corruptions == 0 else { return }
    try file.flush()
    let end = used.end * geometry.clusterSize
    if end < fileEnd {
      try file.resize(to: end)
      let cut = (fileEnd - end) / geometry.clusterSize
      report.leaks -= cut
      report.leaksFixed += cut
      try file.flush()
    }
    guard header.features.contains(.needsCheck) else { return }
    header.features.remove(.needsCheck)
    try header.write(to: file)
  }
}

extension QEDLayer: Repairable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    var checker = try QEDChecker(
      try QEDPrologue.read(from: file), file: file, repairing: nil, progress: progress)
    return try checker.run()
  }

  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    var checker = try QEDChecker(
      try QEDPrologue.read(from: file), file: file, repairing: mode, progress: progress)
    let report = try checker.run()
    // Nothing that is known of the tables is sure to be so any more.
    try state.withLock { (state) throws(EngineError) in try state.startAfresh() }
    return report
  }
}
