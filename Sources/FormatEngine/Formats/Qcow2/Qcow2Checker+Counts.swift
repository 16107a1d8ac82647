/// The refcount structure: what it uses itself, and what it counts.
extension Qcow2Checker {
  /// Counts the refcount table and its blocks.
  mutating func checkBlocks() throws(EngineError) {
    for words in damage {
      corruption("ERROR \(words)")
      needsRebuild = true
    }
    let tableByteCount = UInt64(header.refcountTableClusters) * geometry.clusterSize
    noteStructure(header.refcountTableOffset, tableByteCount)
    countRange(header.refcountTableOffset, tableByteCount)
    for index in 0..<UInt64(refcounts.table.count) {
      let entry = refcounts.table[index]
      let offset = entry & Qcow2Refcounts.blockOffsetMask
      if entry & ~Qcow2Refcounts.blockOffsetMask != 0 {
        corruption("ERROR refcount table entry \(index) has reserved bits set")
        needsRebuild = true
        continue
      }
      guard offset != 0 else { continue }
      guard offset.isAligned(to: geometry.clusterSize) else {
        corruption("ERROR refcount block \(index) is not cluster aligned; refcount table entry corrupted")
        needsRebuild = true
        continue
      }
      guard offset < fileEnd else {
        let verb = repairing == .all ? "Repairing" : "ERROR"
        corruption("\(verb) refcount block \(index) is outside image")
        if !isRecounting { blocksOutside.append(index) }
        continue
      }
      noteStructure(offset, geometry.clusterSize)
      let cluster = offset >> geometry.clusterBits
      countRange(offset, geometry.clusterSize)
      guard counts.window.contains(cluster) else { continue }
      let used = counts.countable(cluster)
      if used != 1 { tellCorruption("ERROR refcount block \(index) refcount=\(used)") }
      if counts[cluster] != 1 { needsRebuild = true }
    }
    try requireExactCounts()
  }

  private mutating func noteStructure(_ offset: UInt64, _ byteCount: UInt64) {
    guard repairing != nil, byteCount > 0, offset < fileEnd else { return }
    let end = min(offset + byteCount, comparedCount << geometry.clusterBits)
    for cluster in offset >> geometry.clusterBits..<end.dividedRoundingUp(by: geometry.clusterSize) {
      structureClusters.append(cluster)
    }
  }

  /// Tells every cluster of the window whose count is not the number of its references.
  mutating func compareCounts() {
    var stored = Qcow2RefcountReader(refcounts)
    // The header at least.
    var end = isRecounting ? (report.imageEndOffset ?? 0) >> geometry.clusterBits : 1
    for cluster in counts.window.clamped(to: 0..<comparedCount) {
      let used = counts.countable(cluster)
      guard let counted = stored.count(of: cluster) else {
        noteUnreadable(cluster)
        continue
      }
      if used == counted {
        if used > 0 { end = cluster + 1 }
        continue
      }
      end = cluster + 1
      let words = "cluster \(cluster) refcount=\(counted) reference=\(used)"
      if counted < used {
        tellCorruption("ERROR \(words)")
        if counted == 0 { needsRebuild = true }
      } else {
        leak("Leaked \(words)")
      }
    }
    report.imageEndOffset = end << geometry.clusterBits
  }

  private mutating func noteUnreadable(_ cluster: UInt64) {
    let index = cluster >> refcounts.blockCoverageBits
    let offset = refcounts.table[index] & Qcow2Refcounts.blockOffsetMask
    if report.checkErrors == 0 && repairing == nil && !offset.isAligned(to: geometry.clusterSize) {
      finding(
        "qcow2: Image is corrupt: Refblock offset 0x\(hex(offset)) unaligned (reftable index: "
          + "\(index == 0 ? "" : "0x")\(hex(index))); "
          + "further non-fatal corruption events will be suppressed")
    }
    report.checkErrors += 1
    needsRebuild = true
    finding("Can't get refcount for cluster \(cluster): Input/output error")
  }
}
