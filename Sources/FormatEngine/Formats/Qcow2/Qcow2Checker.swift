/// Compares what an image counts with what it uses, and its tables with the rules of the format.
///
/// It reads the file's own tables afresh, so it needs no lock and sees what is on disk.
struct Qcow2Checker {
  let header: Qcow2Header
  let extensions: Qcow2HeaderExtensions
  let geometry: Qcow2Geometry
  let file: any ByteStore
  let refcounts: Qcow2Refcounts
  let counts: Qcow2ClusterCounts
  let progress: Progress
  var report = CheckReport()
  private let hasDataFile: Bool
  private let fileEnd: UInt64
  private let l2Buffer: AlignedBuffer

  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 100_000

  init(_ prologue: Qcow2Prologue, file: any ByteStore, progress: Progress) throws(EngineError) {
    header = prologue.header
    extensions = prologue.extensions
    geometry = header.geometry
    self.file = file
    self.progress = progress
    hasDataFile = header.incompatibleFeatures.contains(.externalDataFile)
    fileEnd = try file.byteCount()
    refcounts = try Qcow2Refcounts(header, file: file, order: nil)
    counts = try Qcow2ClusterCounts(clusterCount: fileEnd.dividedRoundingUp(by: geometry.clusterSize))
    l2Buffer = AlignedBuffer(byteCount: Int(geometry.clusterSize))
  }

  mutating func run() throws(EngineError) -> CheckReport {
    report.totalClusters = header.virtualSize.dividedRoundingUp(by: geometry.clusterSize)
    countRange(0, geometry.clusterSize)
    try walkTable(at: header.l1Offset, count: UInt64(header.l1Count), isActive: true)
    try walkSnapshots()
    try walkBitmaps()
    countEncryptionHeader()
    countRange(header.refcountTableOffset, UInt64(header.refcountTableClusters) * geometry.clusterSize)
    try checkBlocks()
    compareCounts()
    try checkCopiedFlags()
    return report
  }

  // MARK: Finding references

  /// Counts one reference to every cluster of a range.
  mutating func countRange(_ offset: UInt64, _ byteCount: UInt64) {
    guard byteCount > 0 else { return }
    let (last, overflow) = offset.addingReportingOverflow(byteCount - 1)
    guard !overflow, last >> geometry.clusterBits < counts.clusterCount else {
      corruption(
        "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
          + "offset 0x\(hex(offset)) size 0x\(hex(byteCount))")
      return
    }
    for cluster in (offset >> geometry.clusterBits)...(last >> geometry.clusterBits) {
      counts.increment(cluster)
    }
  }

  /// Counts one reference to the cluster that starts at `offset`.
  private mutating func countCluster(_ offset: UInt64) {
    let cluster = offset >> geometry.clusterBits
    if cluster < counts.clusterCount {
      counts.increment(cluster)
    } else {
      countRange(offset, geometry.clusterSize)
    }
  }

  /// An L1 table, its L2 tables and all that they refer to.
  private mutating func walkTable(at l1Offset: UInt64, count: UInt64, isActive: Bool) throws(EngineError) {
    guard count > 0 else { return }
    countRange(l1Offset, count * 8)
    guard l1Offset <= fileEnd else { return }
    let l1 = try ResidentTable(store: file, hostOffset: l1Offset, count: Int(count))
    for index in 0..<count {
      let entry = Qcow2L1Entry(l1[index])
      if entry.raw & Qcow2L1Entry.reservedMask != 0 {
        corruption("ERROR found L1 entry with reserved bits set: \(hex(entry.raw))")
      }
      guard entry.tableOffset != 0 else { continue }
      countRange(entry.tableOffset, geometry.clusterSize)
      if entry.tableOffset.isAligned(to: geometry.clusterSize) {
        try walkL2(at: entry.tableOffset, isActive: isActive)
      } else {
        corruption(
          "ERROR l2_offset=\(hex(entry.tableOffset)): Table is not cluster aligned; L1 entry corrupted")
      }
      if isActive { try progress.step(index + 1, of: count) }
    }
  }

  private mutating func walkL2(at table: UInt64, isActive: Bool) throws(EngineError) {
    guard table < fileEnd else { return }
    // Where the next guest cluster would be if those of this table were in one piece.
    var expected: UInt64 = 0
    do throws(EngineError) {
      unsafe try file.read(into: l2Buffer.bytes, at: table)
    } catch {
      report.checkErrors += 1
      finding("ERROR: I/O error in check_refcounts_l2")
      return
    }
    for index in 0..<geometry.l2Count {
      let entry = loadedEntry(index)
      if entry.raw != 0 || entry.bitmap != 0 { check(entry, isActive: isActive, &expected) }
    }
  }

  /// Entry `index` of the table in the buffer.
  private func loadedEntry(_ index: UInt64) -> Qcow2L2Entry {
    let position = Int(index * geometry.entryByteCount)
    // SAFETY: the buffer holds `l2Count` entries.
    let raw = UInt64(bigEndian: unsafe l2Buffer.bytes.load(fromByteOffset: position, as: UInt64.self))
    guard geometry.hasSubclusters else { return Qcow2L2Entry(raw) }
    return Qcow2L2Entry(
      raw,
      bitmap: UInt64(bigEndian: unsafe l2Buffer.bytes.load(fromByteOffset: position + 8, as: UInt64.self)))
  }

  private mutating func check(_ entry: Qcow2L2Entry, isActive: Bool, _ expected: inout UInt64) {
    if entry.isCompressed { return checkCompressed(entry, isActive: isActive) }
    if entry.raw & Qcow2L2Entry.reservedMask != 0 {
      corruption("ERROR found l2 entry with reserved bits set: \(hex(entry.raw))")
    }
    if geometry.hasSubclusters && entry.bitmap & (entry.bitmap >> 32) & 0xffff_ffff != 0 {
      corruption(
        "ERROR offset=\(hex(entry.hostOffset)): Allocated cluster with corrupted subcluster allocation bitmap"
      )
    }
    guard entry.hostOffset != 0 || (hasDataFile && entry.isCopied) else { return }
    guard entry.hostOffset.isAligned(to: geometry.clusterSize) else {
      corruption(
        "ERROR offset=\(hex(entry.hostOffset)): Cluster is not properly aligned; L2 entry corrupted.")
      return
    }
    if !hasDataFile { countCluster(entry.hostOffset) }
    guard isActive else { return }
    report.allocatedClusters += 1
    if expected != 0 && entry.hostOffset != expected { report.fragmentedClusters += 1 }
    expected = entry.hostOffset + geometry.clusterSize
  }

  private mutating func checkCompressed(_ entry: Qcow2L2Entry, isActive: Bool) {
    let packed = entry.packed(geometry)
    if entry.isCopied {
      corruption(
        "ERROR: coffset=0x\(hex(packed.hostOffset)): copied flag must never be set for compressed clusters")
    }
    guard !hasDataFile else {
      corruption("ERROR compressed cluster \(hex(packed.hostOffset)) with data file")
      return
    }
    countRange(packed.hostOffset, packed.byteCount)
    guard isActive else { return }
    report.allocatedClusters += 1
    report.compressedClusters += 1
    // Packed clusters are fragments by nature.
    report.fragmentedClusters += 1
  }

  private mutating func walkSnapshots() throws(EngineError) {
    guard header.snapshotCount > 0 else { return }
    let snapshots: [Qcow2Snapshot]
    do throws(EngineError) {
      snapshots = try Qcow2Snapshot.readAll(header, from: file)
    } catch {
      corruption("ERROR snapshot table: \(error.message)")
      return
    }
    for snapshot in snapshots {
      let name = "Snapshot \(snapshot.record.id) (\(snapshot.record.name))"
      do throws(EngineError) {
        try header.validateTable(
          "L1 table", offset: snapshot.l1Offset, count: UInt64(snapshot.l1Count), entryByteCount: 8,
          maximumBytes: Qcow2Header.maximumL1Bytes)
      } catch {
        corruption("ERROR \(name): \(error.message)")
        continue
      }
      try walkTable(at: snapshot.l1Offset, count: UInt64(snapshot.l1Count), isActive: false)
    }
    let tableEnd = try Qcow2Snapshot.tableByteCount(header, from: file)
    countRange(header.snapshotsOffset, tableEnd)
  }

  // MARK: Comparing

  private mutating func checkBlocks() throws(EngineError) {
    for index in 0..<UInt64(refcounts.table.count) {
      let entry = refcounts.table[index]
      let offset = entry & Qcow2Refcounts.blockOffsetMask
      if entry & ~Qcow2Refcounts.blockOffsetMask != 0 {
        corruption("ERROR refcount table entry \(index) has reserved bits set")
      }
      guard offset != 0 else { continue }
      guard offset.isAligned(to: geometry.clusterSize) else {
        corruption("ERROR refcount block \(index) is not cluster aligned; refcount table entry corrupted")
        continue
      }
      let cluster = offset >> geometry.clusterBits
      guard cluster < counts.clusterCount else {
        corruption("ERROR refcount block \(index) is outside image")
        continue
      }
      counts.increment(cluster)
      let used = counts[cluster]
      if used != 1 { corruption("ERROR refcount block \(index) refcount=\(used)") }
    }
  }

  private mutating func compareCounts() {
    var stored = Qcow2RefcountReader(refcounts)
    var highest: UInt64 = 0
    for cluster in 0..<counts.clusterCount {
      let used = counts[cluster]
      let counted = stored.count(of: cluster)
      if used == counted {
        if used > 0 { highest = cluster + 1 }
        continue
      }
      highest = cluster + 1
      let words = "cluster \(cluster) refcount=\(counted) reference=\(used)"
      if counted < used { corruption("ERROR \(words)") } else { leak("Leaked \(words)") }
    }
    report.imageEndOffset = highest << geometry.clusterBits
  }

  // MARK: Words

  mutating func corruption(_ words: @autoclosure () -> String) {
    report.corruptions += 1
    finding(words())
  }

  private mutating func leak(_ words: @autoclosure () -> String) {
    report.leaks += 1
    finding(words())
  }

  private mutating func finding(_ words: @autoclosure () -> String) {
    if report.findings.count < Self.maximumFindings { report.findings.append(words()) }
  }
}
