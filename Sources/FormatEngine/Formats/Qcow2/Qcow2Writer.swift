import Synchronization

/// Where written bytes go: the qcow2 half of the chain's write.
extension Qcow2Layer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    // Without the key nobody could read what is written.
    guard encryption == nil || cipher != nil else { throw .missingKey }
    return try change(recording: offset..<offset + limit) { (state) throws(EngineError) in
      try state.allocate(at: offset, limit: limit)
    }
  }

  func roomInPlace(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation? {
    guard encryption == nil || cipher != nil else { throw .missingKey }
    return try change(recording: offset..<offset + limit) { (state) throws(EngineError) in
      try state.roomInPlace(at: offset, limit: limit)
    }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.link(allocation) }
  }

  /// Links room that was set aside and not written. Where it reads as zeros already and nothing lies
  /// below it is stored; with extended entries over a backing file it stays unallocated. In an encrypted image
  /// no room reads as zeros: with extended entries it stays unallocated there too, else it is marked as zeros,
  /// which version 2 cannot do.
  func setAside(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      state.mapping.noteFileReaches(allocation.hostOffset + allocation.length)
      if encryption != nil && state.prologue.header.version < 3 {
        throw Qcow2CreateOptions.oldEncryptedPreallocation
      }
      let keeps = geometry.hasSubclusters && (encryption != nil || state.prologue.backing != nil)
      let reading: Qcow2State.RoomReading = keeps ? .asBefore : encryption != nil ? .zeros : .itself
      try state.link(allocation, reading: reading)
    }
  }

  func abandon(_ allocation: Allocation) {
    // What cannot be given back is leaked, which `check` finds: the error that led here is the news.
    state.withLock { state in try? state.abandon(allocation) }
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    if let zeroed = try zeroRawData(at: offset, limit: limit) { return zeroed }
    let done = try change(recording: offset..<offset + limit) { (state) throws(EngineError) in
      try state.setZeros(at: offset, limit: limit, keepingRoom: keepingRoom)
    }
    if !keepingRoom { dataFile?.store.forget(at: offset, count: done) }
    return done
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    if let zeroed = try zeroRawData(at: offset, limit: limit) { return zeroed > 0 ? zeroed : limit }
    let (isFreed, done) = try change(recording: offset..<offset + limit) { (state) throws(EngineError) in
      try state.discard(at: offset, limit: limit)
    }
    if isFreed { dataFile?.store.forget(at: offset, count: done) }
    return done
  }

  /// A raw data file must itself read as the disk does, so its bytes are what becomes zero: 0 where those are
  /// encrypted, and somebody else has to write them.
  private func zeroRawData(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64? {
    let isRaw = state.withLock { $0.prologue.header.autoclearFeatures.contains(.rawExternalData) }
    guard isRaw, let dataFile else { return nil }
    guard encryption == nil else { return 0 }
    try change(recording: offset..<offset + limit) { (_) throws(EngineError) in }
    try dataFile.store.writeZeros(at: offset, count: limit, freeing: true)
    return limit
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    var failure: EngineError?
    do throws(EngineError) { try storeRecordedBits() } catch { failure = error }
    // All else is put in order also where there is no room for bits; their bitmaps stay marked then.
    try state.withLock { (state) throws(EngineError) in try state.close() }
    if let failure { throw failure.whileTrying("Lost persistent bitmaps") }
  }

  /// Runs a change of the tables. The first one prepares the image for it.
  ///
  /// `guestBytes`: what a guest writes to, for bitmaps; nil for what no guest reads.
  func change<T>(
    recording guestBytes: Range<UInt64>? = nil,
    _ body: (inout sending Qcow2State) throws(EngineError) -> sending T
  ) throws(EngineError) -> sending T {
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      if let guestBytes { try state.record(guestBytes) }
      do throws(EngineError) {
        return try body(&state)
      } catch {
        state.noteFailure(error)
        throw error
      }
    }
  }
}

extension Qcow2State {
  private var geometry: Qcow2Geometry { mapping.geometry }
  private var dataStore: UInt16 { hasDataFile ? 1 : 0 }

  /// What a write does with a cluster.
  private enum Plan: Equatable {
    /// The guest reads it already and nobody else does.
    case inPlace
    /// It has room of its own, which the guest does not read yet.
    case sameRoom
    /// It needs room, and has no content that a part of the cluster would have to keep.
    case newRoom
    /// It needs room, and what it holds moves there: packed, or shared with a snapshot.
    case movedRoom
  }

  private func plan(_ entry: Qcow2L2Entry, at offset: UInt64) -> Plan {
    if entry.isCompressed { return .movedRoom }
    if hasDataFile {
      let isStored = entry.isCopied && isStored(entry, at: offset)
      return isStored ? .inPlace : .sameRoom
    }
    guard entry.hostOffset != 0 else { return .newRoom }
    guard entry.isCopied else { return .movedRoom }
    return isStored(entry, at: offset) ? .inPlace : .sameRoom
  }

  private func isStored(_ entry: Qcow2L2Entry, at offset: UInt64) -> Bool {
    guard geometry.hasSubclusters else { return !entry.isZero }
    return (entry.bitmap >> (geometry.offsetInCluster(offset) / geometry.subclusterSize)) & 1 != 0
  }

  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let table = try writableTable(geometry.l1Index(offset))
    let tableEnd = (geometry.l1Index(offset) + 1) << geometry.l2CoverageBits
    let end = min(offset + limit, tableEnd)
    let entry = try mapping.entry(at: offset, in: table)
    guard entry.isCompressed || entry.hostOffset.isAligned(to: geometry.clusterSize) else {
      throw .corrupt("Cluster allocation offset 0x\(hex(entry.hostOffset)) unaligned", at: offset)
    }
    switch plan(entry, at: offset) {
    case .inPlace: return try inPlace(entry, at: offset, end: end, in: table)
    case .sameRoom: return try sameRoom(entry, at: offset, end: end, in: table)
    case let plan: return try newRoom(plan, at: offset, end: end, in: table)
    }
  }

  /// The answer of `allocate` where it would be `inPlace`, else nil.
  func roomInPlace(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation? {
    let l1Index = geometry.l1Index(offset)
    guard Qcow2L1Entry(mapping.l1[l1Index]).isCopied, let table = try mapping.tableOffset(l1Index) else {
      return nil
    }
    let entry = try mapping.entry(at: offset, in: table)
    guard plan(entry, at: offset) == .inPlace, entry.hostOffset.isAligned(to: geometry.clusterSize) else {
      return nil
    }
    return try inPlace(
      entry, at: offset, end: min(offset + limit, (l1Index + 1) << geometry.l2CoverageBits), in: table)
  }

  private func inPlace(_ entry: Qcow2L2Entry, at offset: UInt64, end: UInt64, in table: UInt64)
    throws(EngineError) -> Allocation
  {
    let host = entry.hostOffset + geometry.offsetInCluster(offset)
    let step = geometry.subclusterSize
    var runEnd = (offset + 1).aligned(upTo: step)
    while runEnd < end {
      let next = try mapping.entry(at: runEnd, in: table)
      let nextHost = next.hostOffset + geometry.offsetInCluster(runEnd)
      guard plan(next, at: runEnd) == .inPlace, nextHost == host + (runEnd - offset) else { break }
      runEnd += step
    }
    try requireNoMetadata(at: host, byteCount: runEnd - offset)
    return Allocation(
      guestOffset: offset, length: runEnd - offset, store: dataStore, hostOffset: host, isNew: false)
  }

  private func sameRoom(_ entry: Qcow2L2Entry, at offset: UInt64, end: UInt64, in table: UInt64)
    throws(EngineError) -> Allocation
  {
    let step = geometry.subclusterSize
    let start = offset.aligned(downTo: step)
    let clusterEnd = (offset + 1).aligned(upTo: geometry.clusterSize)
    var runEnd = start + step
    let last = hasDataFile ? end : min(end, clusterEnd)
    while runEnd < last {
      let next = runEnd < clusterEnd ? entry : try mapping.entry(at: runEnd, in: table)
      guard plan(next, at: runEnd) == .sameRoom else { break }
      runEnd += step
    }
    let host = hasDataFile ? start : entry.hostOffset + geometry.offsetInCluster(start)
    try requireNoMetadata(at: host, byteCount: runEnd - start)
    return Allocation(
      guestOffset: start, length: runEnd - start, store: dataStore, hostOffset: host, isNew: true)
  }

  /// Guest bytes must not go where a damaged entry says that they are, if tables are there.
  private func requireNoMetadata(at hostOffset: UInt64, byteCount: UInt64) throws(EngineError) {
    guard !hasDataFile else { return }
    let first = hostOffset >> geometry.clusterBits
    let end = (hostOffset + byteCount).dividedRoundingUp(by: geometry.clusterSize)
    try allocator.metadata.requireNone(in: first..<end, geometry)
  }

  private mutating func newRoom(_ plan: Plan, at offset: UInt64, end: UInt64, in table: UInt64)
    throws(EngineError) -> Allocation
  {
    guard !hasDataFile else {
      throw .corrupt("Compressed cluster entry found in image with external data file", at: offset)
    }
    let size = geometry.clusterSize
    let firstCluster = offset.aligned(downTo: size)
    var wantedEnd = firstCluster + size
    while wantedEnd < end {
      guard self.plan(try mapping.entry(at: wantedEnd, in: table), at: wantedEnd) == plan else { break }
      wantedEnd += size
    }
    let run = try allocator.allocate(atMost: (wantedEnd - firstCluster) / size)
    let host = run.lowerBound << geometry.clusterBits
    let runEnd = firstCluster + UInt64(run.count) * size
    // Subclusters that nobody asked for stay what they are, unless their content has to move.
    let unit = plan == .newRoom ? geometry.subclusterSize : size
    let start = offset.aligned(downTo: unit)
    return Allocation(
      guestOffset: start, length: min(runEnd, end.aligned(upTo: unit)) - start,
      hostOffset: host + (start - firstCluster),
      isNew: true, readsAsZeros: try isPastEnd(host))
  }

  /// Whether nothing was ever written from a host offset on.
  private func isPastEnd(_ hostOffset: UInt64) throws(EngineError) -> Bool {
    try hostOffset >= file.byteCount()
  }

  /// What the guest reads of room that is linked.
  enum RoomReading {
    /// What is in the room.
    case itself
    /// Zeros, whatever is in it. Not for extended entries.
    case zeros
    /// With extended entries: what it read there until now.
    case asBefore
  }

  mutating func link(_ allocation: Allocation, reading: RoomReading = .itself) throws(EngineError) {
    let size = geometry.clusterSize
    var guest = allocation.guestOffset.aligned(downTo: size)
    var host = allocation.hostOffset - geometry.offsetInCluster(allocation.guestOffset)
    let table = try writableTable(geometry.l1Index(guest))
    while guest < allocation.guestEnd {
      let old = try mapping.entry(at: guest, in: table)
      var new = Qcow2L2Entry(host | Qcow2L2Entry.copiedBit)
      if geometry.hasSubclusters {
        new.bitmap =
          reading == .asBefore ? old.bitmap : bitmap(after: allocation, inClusterAt: guest, old)
      } else if reading == .zeros {
        new.raw |= Qcow2L2Entry.zeroBit
      }
      try requireReleasable(old, unless: host)
      try mapping.setEntry(at: guest, in: table, to: new)
      release(old, unless: host)
      guest += size
      host += size
    }
    if allocator.wantsFlush { try allocator.flush() }
  }

  /// The subcluster bitmap of a cluster of which `allocation` has stored a part.
  private func bitmap(after allocation: Allocation, inClusterAt guest: UInt64, _ old: Qcow2L2Entry) -> UInt64
  {
    let first = (max(allocation.guestOffset, guest) - guest) / geometry.subclusterSize
    let last = (min(allocation.guestEnd, guest + geometry.clusterSize) - guest) / geometry.subclusterSize
    let stored: UInt64 = ((1 << last) - 1) & ~((1 << first) - 1)
    let kept = old.isCompressed ? 0 : old.bitmap
    return (kept | stored) & ~(stored << 32)
  }

  /// Gives back what an entry referred to, but for room that the new entry goes on using. To be asked before the entry goes:
  /// `requireReleasable`.
  func release(_ old: Qcow2L2Entry, unless host: UInt64?) {
    guard !hasDataFile else { return }
    allocator.release(clusters(of: old, unless: host))
  }

  /// Throws `corrupt` where the clusters of an entry are not to be let go of (`Qcow2Allocator`).
  func requireReleasable(_ old: Qcow2L2Entry, unless host: UInt64?) throws(EngineError) {
    guard !hasDataFile else { return }
    try allocator.requireReleasable(clusters(of: old, unless: host))
  }

  private func clusters(of entry: Qcow2L2Entry, unless host: UInt64?) -> Range<UInt64> {
    if entry.isCompressed {
      let packed = entry.packed(geometry)
      let last = packed.hostOffset + packed.byteCount - 1
      return packed.hostOffset >> geometry.clusterBits..<(last >> geometry.clusterBits) + 1
    }
    guard entry.hostOffset != 0, entry.hostOffset != host else { return 0..<0 }
    let cluster = entry.hostOffset >> geometry.clusterBits
    return cluster..<cluster + 1
  }

  func abandon(_ allocation: Allocation) throws(EngineError) {
    guard allocation.isNew, !hasDataFile else { return }
    let entry = try mapping.entry(at: allocation.guestOffset)
    let host = allocation.hostOffset - geometry.offsetInCluster(allocation.guestOffset)
    if !entry.isCompressed && entry.hostOffset == host { return }
    let first = host >> geometry.clusterBits
    let count = (allocation.guestEnd - allocation.guestOffset.aligned(downTo: geometry.clusterSize))
      .dividedRoundingUp(by: geometry.clusterSize)
    try allocator.takeBack(first..<first + count)
  }
}
