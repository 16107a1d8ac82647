/// Compares what an image counts with what it uses, and its tables with the rules of the format.
///
/// It reads the file's own tables afresh, so it needs no lock and sees what is on disk. The steps are apart for
/// a repair, which works between them.
struct Qcow2Checker {
  var header: Qcow2Header
  let extensions: Qcow2HeaderExtensions
  let geometry: Qcow2Geometry
  let file: any ByteStore
  var refcounts: Qcow2Refcounts
  /// References that were found, also by the refcount structure itself. A repair has those of all clusters; else the tables are
  /// walked once for each window of the file, so that memory has a bound.
  let counts: Qcow2ClusterCounts
  /// What is wrong with the header.
  let damage: [String]
  let progress: Progress
  var report = CheckReport()
  /// The snapshots whose tables are walked, nil before the list was read.
  var snapshots: Qcow2CheckedSnapshots?
  /// Findings in tables of which a repair may take away some.
  var mendableCount: UInt64 = 0
  /// Something refers to clusters past the end of the file.
  var refersPastEnd = false
  /// The refcount structure cannot be mended in place.
  var needsRebuild = false
  /// Entries of the refcount table whose blocks lie past the end of the file.
  var blocksOutside: [UInt64] = []
  /// Clusters of the refcount table and of the blocks that could be counted, in the order of their counting.
  var structureClusters: [UInt64] = []
  /// What is to be mended, nil for a check that changes nothing.
  let repairing: RepairMode?
  /// What the tables say has been told; they are walked for the counts of another window.
  private(set) var isRecounting = false
  /// For each L2 table, in the order of their walk, the windows that it refers to (`Qcow2ClusterCounts.passedWindows`).
  private var passedWindows: [(table: UInt64, windows: UInt64)] = []
  /// L2 tables that were walked for this window.
  private var walkedTableCount = 0
  /// How often a cluster was walked as an L2 table; nil where nobody wants to know.
  let tableVisits: Qcow2ClusterCounts?
  /// L2 tables of snapshots that are still to be walked, and by how many entries of L1 tables they are named: most stand
  /// in several snapshots, and are walked once for all of them.
  var snapshotTables: [(offset: UInt64, weight: UInt64)] = []
  let hasDataFile: Bool
  let fileEnd: UInt64
  /// Clusters of the file; the last one may be short.
  private let fileClusterCount: UInt64
  /// Clusters whose counts are compared: those of the file, and one more where a region reaches into it.
  var comparedCount: UInt64
  private let l2Buffer: AlignedBuffer

  /// Bytes of stored counts that are held at once. They are compared from front to back; the flags of the tables ask for them
  /// in the order of the guest's disk, which a disk that was filled here and there does not have in the file.
  private static let cachedCountBytes = 2 * MiB
  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 100_000

  init(
    _ prologue: Qcow2Prologue, file: any ByteStore, progress: Progress, repairing: RepairMode? = nil,
    windowSize: UInt64 = Qcow2ClusterCounts.usualWindowSize
  ) throws(EngineError) {
    header = prologue.header
    extensions = prologue.extensions
    damage = prologue.damage
    geometry = header.geometry
    self.file = file
    self.progress = progress
    hasDataFile = header.incompatibleFeatures.contains(.externalDataFile)
    fileEnd = try file.byteCount()
    refcounts = try Qcow2Refcounts(header, file: file, order: nil, cacheByteCount: Self.cachedCountBytes)
    fileClusterCount = fileEnd.dividedRoundingUp(by: geometry.clusterSize)
    comparedCount = fileClusterCount
    counts = try Qcow2ClusterCounts(
      clusterCount: comparedCount + 1, maximumCount: refcounts.maximumCount,
      windowSize: repairing == nil ? windowSize : nil)
    self.repairing = repairing
    tableVisits = repairing == nil ? nil : try Qcow2ClusterCounts(clusterCount: comparedCount + 1)
    l2Buffer = AlignedBuffer(byteCount: Int(geometry.clusterSize))
  }

  mutating func run() throws(EngineError) -> CheckReport {
    try readSnapshots()
    guard report.failure == nil else { return report }
    try findReferences()
    try checkBlocks()
    compareCounts()
    isRecounting = true
    while counts.window.upperBound < comparedCount {
      counts.moveOn()
      if counts.wasPassed {
        try findReferences()
        try checkBlocks()
      }
      compareCounts()
    }
    isRecounting = false
    try checkCopiedFlags()
    return report
  }

  // MARK: Finding references

  /// Counts what the tables refer to, all but the refcount structure.
  mutating func findReferences() throws(EngineError) {
    walkedTableCount = 0
    report.totalClusters = header.virtualSize.dividedRoundingUp(by: geometry.clusterSize)
    countRange(0, geometry.clusterSize)
    try walkTable(at: header.l1Offset, count: UInt64(header.l1Count), isActive: true)
    try walkSnapshots()
    try walkBitmaps()
    countEncryptionHeader()
    try requireExactCounts()
  }

  /// Throws where so many clusters have so many references that they were not counted.
  func requireExactCounts() throws(EngineError) {
    guard counts.isExact else {
      throw EngineError(.tooLarge, "Too many clusters with 65535 references or more to count them")
    }
  }

  /// Counts one reference to every cluster of a range.
  mutating func countRange(_ offset: UInt64, _ byteCount: UInt64, weight: UInt64 = 1) {
    guard byteCount > 0 else { return }
    let (end, overflow) = offset.addingReportingOverflow(byteCount)
    // As in qemu-img, a region may reach past the end by less than a cluster.
    guard !overflow, end <= fileEnd || end - fileEnd < geometry.clusterSize else {
      corruption(
        "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
          + "offset 0x\(hex(offset)) size 0x\(hex(byteCount))", weight: weight)
      mendableCount += 1
      refersPastEnd = true
      return
    }
    let last = (end - 1) >> geometry.clusterBits
    comparedCount = max(comparedCount, last + 1)
    let clusters = offset >> geometry.clusterBits..<last + 1
    counts.notePassed(clusters)
    for cluster in clusters.clamped(to: counts.window) { count(cluster, weight) }
  }

  private mutating func count(_ cluster: UInt64, _ weight: UInt64) {
    let missing = counts.add(weight, to: cluster)
    guard missing > 0 else { return }
    let offset = cluster << geometry.clusterBits
    tellCorruption(
      "ERROR: overflow cluster offset=0x\(hex(offset))\n"
        + "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy "
        + "if the image cannot be opened for writing", weight: missing)
  }

  /// Counts references to the bytes of a cluster that start at `offset`.
  private mutating func countCluster(_ offset: UInt64, _ weight: UInt64) {
    let cluster = offset >> geometry.clusterBits
    if cluster < fileClusterCount && offset.isAligned(to: geometry.clusterSize)
      && counts.addFast(weight, to: cluster)
    {
      return
    }
    countRange(offset, geometry.clusterSize, weight: weight)
  }

  /// An L1 table, its L2 tables and all that they refer to.
  mutating func walkTable(at l1Offset: UInt64, count: UInt64, isActive: Bool) throws(EngineError) {
    guard count > 0 else { return }
    countRange(l1Offset, count * 8)
    guard l1Offset < fileEnd else { return }
    // What lies past the end reads as zeros, which refer to nothing.
    let count = min(count, (fileEnd - l1Offset).dividedRoundingUp(by: 8))
    let l1 = try ResidentTable(store: file, hostOffset: l1Offset, count: Int(count))
    var repeated = Self.repeatedTables(l1)
    for index in 0..<count {
      let entry = Qcow2L1Entry(l1[index])
      if entry.raw & Qcow2L1Entry.reservedMask != 0 {
        corruption("ERROR found L1 entry with reserved bits set: \(hex(entry.raw))")
        mendableCount += 1
      }
      guard entry.tableOffset != 0 else {
        if entry.isCopied {
          // Reading takes it for none; qemu-img's check takes the header for its table.
          corruption("ERROR L1 entry without a table has its copied flag set: \(hex(entry.raw))")
          mendableCount += 1
        }
        continue
      }
      var weight: UInt64 = 1
      if let times = repeated[entry.tableOffset] {
        // A table that stands in many entries is walked once for all of them: 4 million entries may name one.
        guard times > 0 else { continue }
        weight = times
        repeated[entry.tableOffset] = 0
      }
      countRange(entry.tableOffset, geometry.clusterSize, weight: weight)
      if entry.tableOffset.isAligned(to: geometry.clusterSize) {
        if isActive {
          try walkL2(at: entry.tableOffset, isActive: true, weight: weight)
        } else {
          snapshotTables.append((entry.tableOffset, weight))
          if snapshotTables.count == Self.maximumSnapshotTables { try walkSnapshotTables() }
        }
      } else {
        // qemu-img takes what stands there for a table all the same, and finds a thousand more errors in it.
        corruption(
          "ERROR l2_offset=\(hex(entry.tableOffset)): Table is not cluster aligned; L1 entry corrupted",
          weight: weight)
      }
      if isActive { try noteProgress(index + 1, of: count) }
    }
  }

  /// How often each L2 table is named that is named more than once.
  static func repeatedTables(_ l1: ResidentTable) -> [UInt64: UInt64] {
    var offsets: [UInt64] = []
    for index in 0..<UInt64(l1.count) {
      let offset = Qcow2L1Entry(l1[index]).tableOffset
      if offset != 0 { offsets.append(offset) }
    }
    offsets.sort()
    var result: [UInt64: UInt64] = [:]
    var start = 0
    for index in offsets.indices.dropFirst() + [offsets.count] {
      if index < offsets.count, offsets[index] == offsets[start] { continue }
      if index - start > 1 { result[offsets[start]] = UInt64(index - start) }
      start = index
    }
    return result
  }

  /// The tables are walked once for each window.
  private func noteProgress(_ done: UInt64, of count: UInt64) throws(EngineError) {
    let windowCount = max(comparedCount.dividedRoundingUp(by: counts.windowSize), 1)
    try progress.step(counts.window.lowerBound / counts.windowSize * count + done, of: windowCount * count)
  }

  /// Walks a table, but not for the counts of a window that it has nothing of.
  mutating func walkL2(at table: UInt64, isActive: Bool, weight: UInt64) throws(EngineError) {
    let number = walkedTableCount
    walkedTableCount += 1
    // Others may have added tables meanwhile: those behind them are read again.
    if isRecounting, number < passedWindows.count, passedWindows[number].table == table,
      passedWindows[number].windows & counts.windowBit == 0
    {
      return
    }
    counts.forgetPassed()
    try readL2(at: table, isActive: isActive, weight: weight)
    if !isRecounting, number < Self.maximumPassedWindows {
      passedWindows.append((table, counts.passedWindows))
    }
  }

  /// 8 MiB of them; what is behind is walked for each window.
  private static let maximumPassedWindows = 1 << 19

  private mutating func readL2(at table: UInt64, isActive: Bool, weight: UInt64) throws(EngineError) {
    guard table < fileEnd else { return }
    if let tableVisits { _ = tableVisits.add(weight, to: table >> geometry.clusterBits) }
    var walk = TableWalk(isActive: isActive, weight: weight)
    do throws(EngineError) {
      unsafe try file.read(into: l2Buffer.bytes, at: table)
    } catch {
      // What the table leads to would be taken for free.
      guard repairing == nil else { throw error }
      // Also when it is read again: it was read before.
      report.checkErrors += weight
      finding("ERROR: I/O error in check_refcounts_l2")
      return
    }
    for index in 0..<geometry.l2Count {
      let entry = loadedEntry(index)
      if isSound(entry), count(entry, &walk) { continue }
      if entry.raw != 0 || entry.bitmap != 0 { check(entry, index, &walk) }
    }
  }

  /// Whether an entry says nothing but where a cluster lies.
  private func isSound(_ entry: Qcow2L2Entry) -> Bool {
    let plain = Qcow2L2Entry.copiedBit | (Qcow2L2Entry.offsetMask & ~(geometry.clusterSize - 1))
    return entry.raw & ~plain == 0 && entry.hostOffset != 0 && !geometry.hasSubclusters && !hasDataFile
  }

  /// Counts the cluster of a sound entry; false where there is more to say of it, and nothing was counted. Nearly all
  /// entries of nearly all images go this way.
  private mutating func count(_ entry: Qcow2L2Entry, _ walk: inout TableWalk) -> Bool {
    let cluster = entry.hostOffset >> geometry.clusterBits
    guard cluster < fileClusterCount, counts.addFast(walk.weight, to: cluster) else { return false }
    noteAllocated(entry, &walk)
    return true
  }

  private mutating func noteAllocated(_ entry: Qcow2L2Entry, _ walk: inout TableWalk) {
    guard walk.isActive, !isRecounting else { return }
    report.allocatedClusters += walk.weight
    if walk.expected != 0 && entry.hostOffset != walk.expected { report.fragmentedClusters += walk.weight }
    walk.expected = entry.hostOffset + geometry.clusterSize
  }

  /// What is the same for all entries of an L2 table.
  private struct TableWalk {
    var isActive: Bool
    /// L1 entries that name the table.
    var weight: UInt64
    /// Where the next guest cluster would be if those of this table were in one piece.
    var expected: UInt64 = 0
  }

  /// Entry `index` of the table in the buffer.
  private func loadedEntry(_ index: UInt64) -> Qcow2L2Entry {
    unsafe Qcow2L2Entry.load(index, from: l2Buffer.bytes, geometry)
  }

  private mutating func check(_ entry: Qcow2L2Entry, _ index: UInt64, _ walk: inout TableWalk) {
    if entry.isCompressed { return checkCompressed(entry, index, walk) }
    if entry.raw & Qcow2L2Entry.reservedMask != 0 {
      corruption("ERROR found l2 entry with reserved bits set: \(hex(entry.raw))", weight: walk.weight)
      mendableCount += 1
    }
    guard entry.hostOffset != 0 || (hasDataFile && entry.isCopied) else {
      guard entry.storedSubclusters != 0 else { return }
      corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map", weight: walk.weight)
      mendableCount += 1
      return
    }
    if entry.storedSubclusters & entry.zeroSubclusters != 0 {
      corruption(
        "ERROR offset=\(hex(entry.hostOffset)): Allocated cluster has corrupted subcluster allocation bitmap",
        weight: walk.weight)
      mendableCount += 1
    }
    if !entry.hostOffset.isAligned(to: geometry.clusterSize) {
      let isEmpty = geometry.hasSubclusters ? entry.storedSubclusters == 0 : entry.isZero
      corruption(
        "ERROR offset=\(hex(entry.hostOffset)): \(isEmpty ? "Preallocated" : "Data") cluster is not properly "
          + "aligned; L2 entry corrupted.", weight: walk.weight)
      mendableCount += 1
    }
    noteAllocated(entry, &walk)
    if !hasDataFile { countCluster(entry.hostOffset, walk.weight) }
  }

  private mutating func checkCompressed(_ entry: Qcow2L2Entry, _ index: UInt64, _ walk: TableWalk) {
    let packed = entry.packed(geometry)
    if entry.isCopied {
      corruption(
        "ERROR: coffset=0x\(hex(packed.hostOffset)): copied flag must never be set for compressed clusters",
        weight: walk.weight)
      mendableCount += 1
    }
    guard !hasDataFile, entry.bitmap == 0 else {
      let flaw = hasDataFile ? "with data file" : "with non-zero subcluster allocation bitmap"
      let raw = entry.raw & ~Qcow2L2Entry.copiedBit
      corruption("ERROR compressed cluster \(index) \(flaw), entry=0x\(hex(raw))", weight: walk.weight)
      return
    }
    countRange(packed.hostOffset, packed.byteCount, weight: walk.weight)
    guard walk.isActive, !isRecounting else { return }
    report.allocatedClusters += walk.weight
    report.compressedClusters += walk.weight
    // Packed clusters are fragments by nature.
    report.fragmentedClusters += walk.weight
  }

  // MARK: Words

  mutating func corruption(_ words: @autoclosure () -> String, weight: UInt64 = 1) {
    if !isRecounting { tellCorruption(words(), weight: weight) }
  }

  /// What shows only where references are counted.
  mutating func tellCorruption(_ words: @autoclosure () -> String, weight: UInt64 = 1) {
    report.corruptions += weight
    finding(words())
  }

  mutating func leak(_ words: @autoclosure () -> String) {
    report.leaks += 1
    finding(words())
  }

  mutating func finding(_ words: @autoclosure () -> String) {
    if report.findings.count < Self.maximumFindings { report.findings.append(words()) }
  }
}

extension Qcow2Layer: Checkable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    let prologue = try Qcow2Prologue.read(from: file, toleratingDamage: true)
    var checker = try Qcow2Checker(prologue, file: file, progress: progress)
    return try checker.run()
  }
}
