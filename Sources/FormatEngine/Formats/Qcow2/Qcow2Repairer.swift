import Synchronization

/// Mends an image, in an order in which a power cut at any moment leaves it no worse than it was:
///
/// 1. the bit that keeps bitmaps valid, where they cannot be read; then entries that cannot be true, in place
///    (`Qcow2EntryMender`);
/// 2. counts: in place, upwards before anything else and downwards where nothing refers; or, where the refcount
///    structure itself is damaged, a new one beside the old and one write of the header;
/// 3. copied flags, in place, when the counts they speak of are on disk;
/// 4. the snapshot table, beside the old one and one write of the header;
/// 5. the bits of the header that say the image is damaged.
///
/// It works on the file, so it mends what cannot be opened otherwise. Nothing else may use the file meanwhile.
struct Qcow2Repairer {
  let file: any ByteStore
  private let mode: RepairMode
  private let progress: Progress
  /// As it stands in the file.
  private(set) var prologue: Qcow2Prologue
  var checker: Qcow2Checker
  /// Corruptions that were found before the counts were looked at.
  private var tableCorruptions: UInt64 = 0
  var needsSecondRound = false

  init(_ prologue: Qcow2Prologue, file: any ByteStore, mode: RepairMode, progress: Progress)
    throws(EngineError)
  {
    self.prologue = prologue
    self.file = file
    self.mode = mode
    self.progress = progress
    checker = try Qcow2Checker(prologue, file: file, progress: progress, repairing: mode)
  }

  mutating func run() throws(EngineError) -> CheckReport {
    let report = try runOnce()
    guard needsSecondRound && report.failure == nil else { return report }
    // Tables that stand alone now can be mended now; and the file has grown over what lay past its end.
    let first = report
    checker = try Qcow2Checker(prologue, file: file, progress: progress, repairing: mode)
    var second = try runOnce()
    second.findings = first.findings + second.findings
    second.corruptionsFixed += first.corruptionsFixed
    second.leaksFixed += first.leaksFixed
    return second
  }

  private mutating func runOnce() throws(EngineError) -> CheckReport {
    try takeOffDamagedBitmaps()
    try checker.readSnapshots()
    guard checker.report.failure == nil else { return checker.report }
    try findReferences()
    try checker.checkBlocks()
    if mode == .all, try checker.bitmapsShareClusters() {
      try takeOffBitmaps("They share clusters with something else")
      return try runOnce()
    }
    checker.compareCounts()
    if mode == .leaks && checker.needsRebuild {
      checker.finding("ERROR need to rebuild refcount structures")
      checker.report.failure = CheckFailure("Input/output error")
      return checker.report
    }
    let overlapping = mode == .all ? try overlappingTables() : nil
    if mode == .all && (checker.needsRebuild || checker.sharesStructure || overlapping != nil) {
      try rebuild(moving: overlapping)
    } else if checker.report.corruptions > tableCorruptions || checker.report.leaks > 0 {
      try mendCounts()
    }
    let isSound = checker.report.corruptions == snapshotRepairCount && checker.report.checkErrors == 0
    try checker.checkCopiedFlags(mending: mode == .all || (isSound && checker.report.leaks == 0))
    try mendSnapshots()
    try file.flush()
    if checker.report.corruptions == 0 && checker.report.checkErrors == 0 { try takeOffMarks() }
    return checker.report
  }

  private var snapshotRepairCount: UInt64 { checker.snapshots?.repairCount ?? 0 }

  /// Counts what the tables refer to, after their entries are mended.
  private mutating func findReferences() throws(EngineError) {
    let beforeTables = checker
    try checker.findReferences()
    if mode == .all && checker.mendableCount > 0 {
      // A lost entry may take the refcount structure for a table of its own: that must not be written to.
      try checker.checkBlocks()
      var mender = Qcow2EntryMender(checker, hasBacking: prologue.backing != nil)
      try mender.run()
      checker = try Qcow2Checker(prologue, file: file, progress: progress, repairing: mode)
      checker.snapshots = beforeTables.snapshots
      checker.report = beforeTables.report
      checker.report.findings += mender.lines
      checker.report.corruptionsFixed += mender.mendedCount
      try checker.findReferences()
    }
    tableCorruptions = checker.report.corruptions
  }

  /// Bitmaps that cannot be read are worthless, and what they refer to is about to be given back: a list that
  /// goes on naming it would be a danger. What is left is an image that was changed without its bitmaps.
  private mutating func takeOffDamagedBitmaps() throws(EngineError) {
    if let damage = try checker.bitmapDamage() { try takeOffBitmaps(damage) }
  }

  private mutating func takeOffBitmaps(_ reason: String) throws(EngineError) {
    prologue.header.autoclearFeatures.remove(.bitmaps)
    try prologue.header.writeFeatures(to: file)
    let known = checker.report
    checker = try Qcow2Checker(prologue, file: file, progress: progress, repairing: mode)
    checker.report.findings = known.findings.filter { $0.hasPrefix("Repairing") }
    checker.report.corruptionsFixed = known.corruptionsFixed
    checker.noteMended("Repairing bitmaps: taken off. \(reason)")
  }

  // MARK: Counts in place

  private mutating func mendCounts() throws(EngineError) {
    let order = WriteOrder(stores: [file])
    let refcounts = try Qcow2Refcounts(prologue.header, file: file, order: order)
    order.append(refcounts.blocks)
    order.append(refcounts.table)
    var report = checker.report
    // Where only leaks are mended, all else that was found is left.
    if mode == .all { report.corruptions = tableCorruptions }
    report.leaks = 0
    for index in checker.blocksOutside where mode == .all {
      // Past the end of the file there are only zeros, as there are without a block.
      refcounts.table.set(index, to: 0)
      report.corruptionsFixed += 1
    }
    if !checker.refersPastEnd { try forgetCounts(from: checker.comparedCount, in: refcounts) }
    for cluster in 0..<checker.comparedCount {
      let counted = try refcounts.count(of: cluster)
      let used = checker.counts.countable(cluster)
      guard counted != used else { continue }
      let words = "cluster \(cluster) refcount=\(counted) reference=\(used)"
      if counted < used && mode == .leaks { continue }
      try refcounts.set(cluster..<cluster + 1, to: used)
      report.findings.append("Repairing \(words)")
      if counted < used { report.corruptionsFixed += 1 } else { report.leaksFixed += 1 }
    }
    try order.flush()
    checker = try checker.withNewCounts(prologue, report: report)
  }

  /// Takes down the counts of clusters that the file does not reach: they would be leaks as soon as it does.
  private func forgetCounts(from first: UInt64, in refcounts: Qcow2Refcounts) throws(EngineError) {
    let coverage: UInt64 = 1 << refcounts.blockCoverageBits
    var start = first
    while start >> refcounts.blockCoverageBits < UInt64(refcounts.table.count) {
      let end = (start + 1).aligned(upTo: coverage)
      if let block = try refcounts.blockOffset(of: start) {
        try forgetCounts(of: start..<end, in: refcounts, at: block)
      }
      start = end
    }
  }

  /// The same for clusters that the block at `block` counts. A million blocks may be holes, and speak of billions of
  /// clusters each.
  private func forgetCounts(of clusters: Range<UInt64>, in refcounts: Qcow2Refcounts, at block: UInt64)
    throws(EngineError)
  {
    var start = clusters.lowerBound
    while start < clusters.upperBound {
      try progress.proceed()
      let place = ((start & (1 << refcounts.blockCoverageBits - 1)) << refcounts.order) >> 3
      let run = try file.run(at: block + place, limit: refcounts.clusterSize - place)
      let inHole = (run.length << 3) >> refcounts.order
      if !run.isData, inHole > 0 {
        start += inHole
        continue
      }
      guard let window = try refcounts.window(of: start) else { return }
      let first = start
      start = window.clusters.upperBound
      if window.slice.isEmpty { continue }
      for cluster in first..<start where try refcounts.count(of: cluster) != 0 {
        try refcounts.set(cluster..<cluster + 1, to: 0)
      }
    }
  }

  // MARK: A new refcount structure

  /// Counts anew, in a structure of its own whose size is that of the file and not of the disk.
  private mutating func rebuild(moving overlapping: Overlap?) throws(EngineError) {
    checker.finding("Rebuilding refcount structure")
    var report = checker.report
    report.corruptionsFixed += report.corruptions - tableCorruptions
    report.leaksFixed += report.leaks
    report.leaks = 0
    report.checkErrors = 0
    let references = checker.counts
    let clusterCount = checker.comparedCount
    let structure = checker.structureReferences
    // The old structure is in the way until the switch, and then it is not counted.
    let rewrite = try Qcow2Rewrite(mending: prologue, file: file) { cluster in
      cluster < clusterCount && references[cluster] > 0
    }
    func used(_ cluster: UInt64) -> UInt64 {
      // A table that is to be moved may reach past the end of the file.
      guard references.window.contains(cluster) else { return 0 }
      let count = references[cluster]
      return count == 0 ? 0 : count - min(count, structure[cluster] ?? 0)
    }
    let maximum = checker.refcounts.maximumCount
    var start: UInt64 = 0
    while start < clusterCount {
      let count = used(start)
      var end = start + 1
      while end < clusterCount, used(end) == count { end += 1 }
      if count > 0 { try rewrite.set(start..<end, to: min(count, maximum)) }
      start = end
    }
    needsSecondRound = overlapping != nil || checker.refersPastEnd
    if let overlapping { report.findings += try move(overlapping, in: rewrite, used: used) }
    let mendedSnapshots = try mendSnapshots(in: rewrite)
    try rewrite.commit()
    prologue = try Qcow2Prologue.read(from: file, toleratingDamage: true)
    try findAgain(&report, mendedSnapshots: mendedSnapshots)
    for cluster in structure.keys.sorted() {
      report.findings.append(
        "Repairing cluster \(cluster) refcount=\(references[cluster]) reference=\(used(cluster))")
    }
    checker.report = report
  }

  /// Walks the tables once more, with the new structure.
  private mutating func findAgain(_ report: inout CheckReport, mendedSnapshots: UInt64) throws(EngineError) {
    var snapshots = checker.snapshots
    if mendedSnapshots > 0 { snapshots?.needsWriting = false }
    let waiting = snapshotRepairCount - mendedSnapshots
    checker = try Qcow2Checker(prologue, file: file, progress: progress, repairing: mode)
    checker.snapshots = snapshots
    try checker.findReferences()
    report.findings += checker.report.findings
    report.corruptions = checker.report.corruptions + waiting
    report.corruptionsFixed += mendedSnapshots
  }

  // MARK: The header

  private mutating func mendSnapshots() throws(EngineError) {
    guard mode == .all, checker.snapshots?.needsWriting == true else { return }
    let rewrite = try Qcow2Rewrite(mending: prologue, file: file)
    let mended = try mendSnapshots(in: rewrite)
    try rewrite.commit()
    prologue = try Qcow2Prologue.read(from: file, toleratingDamage: true)
    checker.report.corruptions -= mended
    checker.report.corruptionsFixed += mended
    // Of what is left, something may have been found in a list that is no longer there.
    if checker.report.corruptions > 0 { needsSecondRound = true }
  }

  /// Puts a snapshot table without damage in the place of the old one, and says how much that mended.
  private func mendSnapshots(in rewrite: Qcow2Rewrite) throws(EngineError) -> UInt64 {
    guard let snapshots = checker.snapshots, snapshots.needsWriting else { return 0 }
    let old = rewrite.clusters(at: prologue.header.snapshotsOffset, byteCount: snapshots.byteCount)
    if old.upperBound <= checker.comparedCount {
      // Counts that were cut off say nothing of what else is in the cluster: they are left alone.
      for cluster in old where checker.counts[cluster] <= checker.refcounts.maximumCount {
        try rewrite.remove(cluster..<cluster + 1)
      }
    }
    try rewrite.writeSnapshots(snapshots.entries)
    return snapshots.repairCount
  }

  /// The image is sound: it need not say otherwise, nor keep promises of writers that we know nothing of.
  private mutating func takeOffMarks() throws(EngineError) {
    let old = prologue.header
    guard old.version >= 3 else { return }
    prologue.header.incompatibleFeatures.subtract([.dirty, .corrupt])
    prologue.header.autoclearFeatures.formIntersection([.bitmaps, .rawExternalData])
    if prologue.extensions[Qcow2HeaderExtensions.Kind.bitmaps] == nil {
      prologue.header.autoclearFeatures.remove(.bitmaps)
    }
    guard prologue.header != old else { return }
    try prologue.header.writeFeatures(to: file)
  }
}

extension Qcow2Checker {
  /// Whether the refcount table shares clusters with something else: changing it would change that.
  var sharesStructure: Bool { structureClusters.contains { counts[$0] > 1 } }

  /// References by the refcount table and its blocks.
  var structureReferences: [UInt64: UInt64] {
    structureClusters.reduce(into: [:]) { $0[$1, default: 0] += 1 }
  }

  /// The same findings, and the counts as they are in the file now.
  fileprivate func withNewCounts(_ prologue: Qcow2Prologue, report: CheckReport) throws(EngineError)
    -> Qcow2Checker
  {
    var result = self
    result.header = prologue.header
    result.refcounts = try Qcow2Refcounts(prologue.header, file: file, order: nil)
    result.report = report
    return result
  }
}

extension Qcow2Layer: Repairable {
  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    try state.withLock { (state) throws(EngineError) in
      let prologue = try Qcow2Prologue.read(from: file, toleratingDamage: true)
      var repairer = try Qcow2Repairer(prologue, file: file, mode: mode, progress: progress)
      let result: Result<CheckReport, EngineError>
      do throws(EngineError) { result = .success(try repairer.run()) } catch { result = .failure(error) }
      try reload(&state)
      return try result.get()
    }
  }
}
