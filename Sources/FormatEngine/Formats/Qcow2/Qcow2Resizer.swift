import Synchronization

extension Qcow2Layer: Resizable {
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    let header = state.withLock { $0.prologue.header }
    guard newSize.isAligned(to: 512) else { throw .invalid("The new size must be a multiple of 512") }
    guard header.version >= 3 || header.snapshotCount == 0 else {
      throw .unsupported("Can't resize a v2 image which has snapshots")
    }
    guard newSize != header.virtualSize else { return }
    try storeRecordedBits()
    try bitmapDirectory().requireResizable(to: newSize)
    if newSize > header.virtualSize {
      try grow(header, to: newSize, preallocation, progress, clearing: clearing)
    } else {
      try shrink(header, to: newSize, progress)
    }
  }

  // MARK: Growing

  /// The new size is recorded last: what it brings into the disk reads as zeros by then.
  private func grow(
    _ header: Qcow2Header, to newSize: UInt64, _ preallocation: Preallocation, _ progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    let l1Count = geometry.l1Count(forVirtualSize: newSize)
    guard newSize <= maximumFileOffset, l1Count * 8 <= Qcow2Header.maximumL1Bytes else {
      throw EngineError(.tooLarge, "Failed to grow the L1 table: File too large")
    }
    if l1Count > UInt64(header.l1Count) {
      try rewrite { (rewrite) throws(EngineError) in
        var table = try Qcow2L1Table(at: header.l1Offset, count: header.l1Count, from: file)
        table.grow(to: Int(l1Count))
        try rewrite.replaceL1(with: table)
      }
    }
    setSizeInMemory(newSize)
    // What the disk gains is not dirty by what is done to it here; the size is switched by a rewrite, after
    // which recording begins anew.
    state.withLock { $0.hasBegunRecording = true }
    var isSwitching = false
    do throws(EngineError) {
      try clearing()
      try extendDataFile(from: header.virtualSize, to: newSize)
      let isRaw = header.autoclearFeatures.contains(.rawExternalData)
      if preallocation != .off || isRaw {
        let start = header.virtualSize.aligned(upTo: clusterSize)
        try Qcow2Preallocator(self, isRaw && preallocation == .off ? .metadata : preallocation).run(
          from: start, progress)
      }
      try flush()
      try rewrite { (rewrite) throws(EngineError) in
        try rewrite.resizeBitmaps(from: header.virtualSize, to: newSize)
        rewrite.prologue.header.virtualSize = newSize
        isSwitching = true
      }
    } catch {
      // A rewrite that fails while it switches has taken all from the file again, whichever size that has.
      if !isSwitching {
        setSizeInMemory(header.virtualSize)
        state.withLock { $0.hasBegunRecording = false }
      }
      throw error
    }
  }

  /// The new size as all but the image knows it.
  private func setSizeInMemory(_ byteCount: UInt64) {
    state.withLock { $0.prologue.header.virtualSize = byteCount }
    size.store(byteCount, ordering: .relaxed)
  }

  /// What a raw data file held past the old end of the disk is not to come back.
  private func extendDataFile(from oldSize: UInt64, to newSize: UInt64) throws(EngineError) {
    guard let store = dataFile?.store else { return }
    let isRaw = state.withLock { $0.prologue.header.autoclearFeatures.contains(.rawExternalData) }
    let byteCount = try store.byteCount()
    if isRaw, byteCount > oldSize {
      try store.writeZeros(at: oldSize, count: min(byteCount, newSize) - oldSize, freeing: true)
    }
    if byteCount < newSize { try store.resize(to: newSize) }
  }

  // MARK: Shrinking

  /// The new size is recorded first. What lies past it is no longer read, so it can go step by step.
  private func shrink(_ header: Qcow2Header, to newSize: UInt64, _ progress: Progress) throws(EngineError) {
    try rewrite { (rewrite) throws(EngineError) in
      try rewrite.resizeBitmaps(from: header.virtualSize, to: newSize)
      rewrite.prologue.header.virtualSize = newSize
    }
    let start = newSize.aligned(upTo: clusterSize)
    let l1Count = UInt64(header.l1Count)
    for l1Index in geometry.l1Index(start)..<max(l1Count, geometry.l1Index(start)) {
      try progress.step(l1Index, of: l1Count)
      try change { (state) throws(EngineError) in
        try state.removeEntries(ofTable: l1Index, from: max(start, l1Index << geometry.l2CoverageBits))
      }
    }
    try flush()
    try shortenDataFile(from: header.virtualSize, to: newSize)
    try shortenTables()
    try cutOffFreeEnd()
  }

  /// A data file ends with the disk; what lies past the disk's old end in one that is longer was never the disk's.
  private func shortenDataFile(from oldSize: UInt64, to newSize: UInt64) throws(EngineError) {
    guard let store = dataFile?.store else { return }
    let byteCount = try store.byteCount()
    if byteCount > oldSize.aligned(upTo: clusterSize) {
      try store.writeZeros(at: newSize, count: oldSize - newSize, freeing: true)
    } else if byteCount > newSize {
      try store.resize(to: newSize)
    }
    try store.flush()
  }

  /// Gives back clusters of tables that are longer than a smaller disk needs.
  private func shortenTables() throws(EngineError) {
    var (rounds, hasDropped) = (0, true)
    while hasDropped && rounds < 4 {
      hasDropped = try rewrite { (rewrite) throws(EngineError) in
        let header = rewrite.prologue.header
        let count = geometry.l1Count(forVirtualSize: header.virtualSize)
        if (UInt64(header.l1Count) - count) * 8 >= clusterSize {
          try rewrite.replaceL1(
            with: try Qcow2L1Table(at: header.l1Offset, count: UInt32(count), from: rewrite.file))
        }
        // A block may count nothing but others that go before it: then once more.
        return try rewrite.dropEmptyRefcountBlocks()
      }
      rounds += 1
    }
  }

  /// Makes the file end behind the last cluster in use.
  fileprivate func cutOffFreeEnd() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      let byteCount = try file.byteCount()
      var end = byteCount.dividedRoundingUp(by: clusterSize)
      let coverage: UInt64 = 1 << state.refcounts.blockCoverageBits
      while end > 0, try state.refcounts.count(of: end - 1) == 0 {
        let hasBlock = try state.refcounts.blockOffset(of: end - 1) != nil
        end = hasBlock ? end - 1 : (end - 1).aligned(downTo: coverage)
      }
      if end > 0, end << geometry.clusterBits < byteCount {
        try file.resize(to: end << geometry.clusterBits)
        try file.flush()
      }
    }
  }
}

extension Qcow2Layer: Emptyable {
  func removeContent(progress: Progress) throws(EngineError) {
    try storeRecordedBits()
    try rewrite { (rewrite) throws(EngineError) in try rewrite.removeContent() }
    // Once more, because now there is room in front: the tables move there, and the file can end behind them.
    try rewrite { (rewrite) throws(EngineError) in
      let header = rewrite.prologue.header
      try rewrite.replaceL1(
        with: try Qcow2L1Table(at: header.l1Offset, count: header.l1Count, from: rewrite.file))
      try rewrite.dropEmptyRefcountBlocks()
    }
    if let store = dataFile?.store { store.forget(at: 0, count: min(virtualSize, try store.byteCount())) }
    try cutOffFreeEnd()
  }
}

extension Qcow2Layer {
  var storedUnit: UInt64 { geometry.subclusterSize }
  /// Version 2 can only forget clusters, and what is forgotten reads as what lies below.
  var marksZeros: Bool { state.withLock { $0.prologue.header.version >= 3 } }
}

extension Qcow2State {
  /// Lets go of what the L2 table of an L1 entry refers to from guest offset `start` on, and of the table itself
  /// where that is all of it.
  fileprivate mutating func removeEntries(ofTable l1Index: UInt64, from start: UInt64) throws(EngineError) {
    let geometry = mapping.geometry
    guard let old = try mapping.tableOffset(l1Index) else { return }
    let isWhole = start == l1Index << geometry.l2CoverageBits
    let table = isWhole ? old : try writableTable(l1Index)
    let end = (l1Index + 1) << geometry.l2CoverageBits
    let guests = stride(from: start, to: end, by: Int(geometry.clusterSize))
    // Before any is let go of: the entries of a table that goes as a whole stay until then.
    for guest in guests { try requireReleasable(try mapping.entry(at: guest, in: table), unless: nil) }
    for guest in guests {
      let entry = try mapping.entry(at: guest, in: table)
      if entry == Qcow2L2Entry(0) { continue }
      if !isWhole { try mapping.setEntry(at: guest, in: table, to: Qcow2L2Entry(0)) }
      // Several that lead to one place may be too many together: the rest is leaked.
      if (try? requireReleasable(entry, unless: nil)) != nil { release(entry, unless: nil) }
    }
    if isWhole {
      mapping.l1.set(l1Index, to: 0)
      allocator.release(old >> geometry.clusterBits..<(old >> geometry.clusterBits) + 1)
    }
    if allocator.wantsFlush { try flush() }
  }
}
