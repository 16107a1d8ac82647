extension Qcow2Rewrite {
  /// Counts anew in counts of another width: what the image counts stays, but for the refcount structure itself.
  func changeRefcountWidth(toOrder order: UInt32, progress: Progress) throws(EngineError) {
    let header = prologue.header
    let bits = geometry.clusterBits
    let tableByteCount = UInt64(header.refcountTableClusters) * geometry.clusterSize
    let table = try ResidentTable(
      store: file, hostOffset: header.refcountTableOffset, count: Int(tableByteCount / 8))
    let tableClusters = clusters(at: header.refcountTableOffset, byteCount: tableByteCount)
    var blocks: Set<UInt64> = []
    for index in 0..<UInt64(table.count) {
      let offset = table[index] & Qcow2Refcounts.blockOffsetMask
      if offset != 0 { blocks.insert(offset >> bits) }
    }
    let maximum = Qcow2Refcounts.maximumCount(order: UInt64(order))
    let fileClusters = try file.byteCount().dividedRoundingUp(by: geometry.clusterSize)
    let coverage: UInt64 = 1 << (bits + 3 - UInt64(header.refcountOrder))
    var done: UInt64 = 0
    try startCounting(refcountOrder: order)
    for index in 0..<UInt64(table.count) where table[index] & Qcow2Refcounts.blockOffsetMask != 0 {
      var run = index * coverage..<index * coverage
      var runCount: UInt64 = 0
      for cluster in index * coverage..<(index + 1) * coverage {
        var count = try oldCount(of: cluster)
        if count > 0, tableClusters.contains(cluster) || blocks.contains(cluster) { count -= 1 }
        try requireCountable(cluster, count, maximum, fileClusters)
        if count != runCount {
          if runCount > 0 { try set(run, to: runCount) }
          (run, runCount) = (cluster..<cluster, count)
        }
        run = run.lowerBound..<cluster + 1
      }
      if runCount > 0 { try set(run, to: runCount) }
      done += 1
      try progress.step(done, of: UInt64(blocks.count))
    }
  }

  private func requireCountable(_ cluster: UInt64, _ count: UInt64, _ maximum: UInt64, _ fileClusters: UInt64)
    throws(EngineError)
  {
    guard count > 0 else { return }
    let offset = hex(cluster << geometry.clusterBits)
    guard count <= maximum else {
      throw .invalid(
        "Cannot decrease refcount entry width to \((UInt64.bitWidth - maximum.leadingZeroBitCount)) bits: "
          + "Cluster at offset 0x\(offset) has a refcount of \(count)")
    }
    // The new structure goes there.
    guard cluster < fileClusters else {
      throw .corrupt("Cluster at offset 0x\(offset) is in use, and lies past the end of the image file")
    }
  }
}
