/// Changes what whole trees of tables - the disk's, a snapshot's - refer to.
///
/// A data cluster has one reference for each way to it from an L1 table, so a table that two L1 tables share
/// counts for what it refers to twice.
struct Qcow2TreeRewriter {
  private let rewrite: Qcow2Rewrite
  private let reader: Qcow2TableReader

  init(_ rewrite: Qcow2Rewrite) throws(EngineError) {
    self.rewrite = rewrite
    reader = try Qcow2TableReader(rewrite.prologue.header, file: rewrite.file)
  }

  /// Throws `corrupt` where the tables are damaged, or what they refer to counts as free. To be called for all
  /// trees before the first change: new tables go where the counts say that nothing is.
  func requireSound(_ l1: Qcow2L1Table) throws(EngineError) {
    try forEachTable(of: l1) { (table) throws(EngineError) in
      try rewrite.requireCounted(table..<table + 1)
      try reader.forEachRun { (run) throws(EngineError) in try rewrite.requireCounted(run) }
    }
  }

  /// One reference more to each L2 table of an L1 table, and to all that these refer to.
  func addReferences(of l1: Qcow2L1Table) throws(EngineError) {
    try forEachTable(of: l1) { (table) throws(EngineError) in
      try rewrite.add(table..<table + 1)
      try reader.forEachRun { (run) throws(EngineError) in try rewrite.add(run) }
    }
  }

  /// One reference less to each of them.
  func removeReferences(of l1: Qcow2L1Table) throws(EngineError) {
    try forEachTable(of: l1) { (table) throws(EngineError) in
      try rewrite.remove(table..<table + 1)
      try reader.forEachRun { (run) throws(EngineError) in
        try rewrite.requireReleasable(run)
        try rewrite.remove(run)
      }
    }
  }

  private func forEachTable(of l1: Qcow2L1Table, _ body: (UInt64) throws(EngineError) -> Void)
    throws(EngineError)
  {
    for index in 0..<l1.count {
      guard let table = try reader.cluster(of: l1[index]) else { continue }
      try reader.read(table)
      try body(table)
    }
  }

  /// Takes the copied flags off a tree that is shared whole from now on. Tables that have any get new places,
  /// and the entries of `l1` go there.
  ///
  /// `userCount`: how many L1 tables of the image to come will be a copy of `l1`; the tables' counts include
  /// them already. What other L1 tables share keeps its old place for those.
  func clearCopiedFlags(of l1: inout Qcow2L1Table, userCount: Int) throws(EngineError) {
    for index in 0..<l1.count {
      guard let table = try reader.cluster(of: l1[index]) else { continue }
      try reader.read(table)
      var hasChanged = false
      for number in 0..<reader.entryCount {
        let entry = reader[number]
        guard entry.isCopied, !entry.isCompressed else { continue }
        reader[number] = Qcow2L2Entry(entry.raw & ~Qcow2L2Entry.copiedBit)
        hasChanged = true
      }
      let place = hasChanged ? try move(table, userCount: userCount) : table
      l1[index] = try l1Entry(forTable: place)
    }
  }

  /// Sets the copied flags of the active tree where there is one reference left.
  func setCopiedFlags(of l1: inout Qcow2L1Table) throws(EngineError) {
    for index in 0..<l1.count {
      guard var table = try reader.cluster(of: l1[index]) else { continue }
      // What a table that is shared refers to is shared, too.
      if try rewrite.count(of: table) == 1 {
        try reader.read(table)
        var hasChanged = false
        for number in 0..<reader.entryCount {
          let entry = reader[number]
          guard !entry.isCopied, !entry.isCompressed, entry.hostOffset != 0,
            let cluster = try reader.clusters(of: entry).first, try rewrite.count(of: cluster) == 1
          else { continue }
          reader[number] = Qcow2L2Entry(entry.raw | Qcow2L2Entry.copiedBit)
          hasChanged = true
        }
        if hasChanged { table = try move(table, userCount: 1) }
      }
      l1[index] = try l1Entry(forTable: table)
    }
  }

  private func l1Entry(forTable table: UInt64) throws(EngineError) -> Qcow2L1Entry {
    let isCopied = try rewrite.count(of: table) == 1
    return Qcow2L1Entry(
      table << rewrite.geometry.clusterBits | (isCopied ? Qcow2L1Entry.copiedBit : 0))
  }

  /// Writes the table that was read and changed to a new place for its users.
  private func move(_ table: UInt64, userCount: Int) throws(EngineError) -> UInt64 {
    let place = try rewrite.allocate(clusters: 1) >> rewrite.geometry.clusterBits
    try reader.write(to: place)
    for _ in 1..<userCount { try rewrite.add(place..<place + 1) }
    for _ in 0..<userCount { try rewrite.remove(table..<table + 1) }
    return place
  }
}
