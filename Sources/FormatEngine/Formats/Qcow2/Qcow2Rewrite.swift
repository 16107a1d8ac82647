import Synchronization

/// A change of an image's metadata as a whole: a snapshot, a repair, another size.
///
/// Everything new is written to clusters that are free in the image as it stands on disk. Then one write of the
/// header's first sector - where the L1 table, the refcount table, the snapshot table, the size and the features
/// all have their fields - switches over. A crash before it leaves the old image, after it the new one.
final class Qcow2Rewrite {
  /// Header, extensions and backing file as they are to be. The refcount fields are filled in by themselves.
  var prologue: Qcow2Prologue
  /// New tables are written straight to it, at places from `allocate`. All that the image held when the change
  /// began can be read from it.
  let file: any ByteStore
  let geometry: Qcow2Geometry
  private let old: Qcow2Refcounts
  private let shadow: Qcow2ShadowRefcounts

  init(_ state: borrowing Qcow2State) throws(EngineError) {
    prologue = state.currentPrologue
    file = state.file
    geometry = state.mapping.geometry
    old = state.refcounts
    shadow = try Qcow2ShadowRefcounts(state.refcounts, geometry, state.allocator.metadata, file: file)
  }

  /// A change that mends a file without a layer over it. With `isTaken` all counts are forgotten, whatever the old
  /// structure looks like, and new tables go where it says no.
  init(mending prologue: Qcow2Prologue, file: any ByteStore, isTaken: ((UInt64) -> Bool)? = nil)
    throws(EngineError)
  {
    self.prologue = prologue
    self.file = file
    geometry = prologue.header.geometry
    old = try Qcow2Refcounts(prologue.header, file: file, order: nil)
    shadow = try Qcow2ShadowRefcounts(old, geometry, Qcow2MetadataMap(), file: file)
    if let isTaken {
      try shadow.startAnew(order: UInt64(prologue.header.refcountOrder), isTaken: isTaken)
    }
  }

  /// References to a host cluster in the image to come.
  func count(of cluster: UInt64) throws(EngineError) -> UInt64 { try shadow.counts.count(of: cluster) }

  /// References to a host cluster that the image counts until now.
  func oldCount(of cluster: UInt64) throws(EngineError) -> UInt64 { try old.count(of: cluster) }

  /// One reference more to each of these clusters. Throws `tooLarge` where they cannot be counted.
  func add(_ clusters: Range<UInt64>) throws(EngineError) { try shadow.increment(clusters) }

  /// Throws `corrupt` where one of these clusters, which are in use, counts as free until now: it could be handed
  /// out as a new place. To be asked before the first change.
  func requireCounted(_ clusters: Range<UInt64>) throws(EngineError) {
    guard let free = try old.firstFree(in: clusters) else { return }
    let offset = free << geometry.clusterBits
    throw .corrupt(
      "Cluster at 0x\(hex(offset)) is in use and counts as free; the image needs repair", at: offset)
  }

  /// Throws `corrupt` where a damaged entry leads into tables, which would become free room with it (the rule of
  /// `Qcow2Allocator`).
  func requireReleasable(_ clusters: Range<UInt64>) throws(EngineError) {
    guard shadow.metadata.kind(in: clusters) != nil else { return }
    for cluster in clusters where shadow.metadata.kind(in: cluster..<cluster + 1) != nil {
      guard try count(of: cluster) > 1 else { return try shadow.metadata.requireNone(in: clusters, geometry) }
    }
  }

  /// One reference less to each of these clusters. What is free then is not used again before the switch.
  func remove(_ clusters: Range<UInt64>) throws(EngineError) { try shadow.decrement(clusters) }

  /// As many references to each of these clusters.
  func set(_ clusters: Range<UInt64>, to count: UInt64) throws(EngineError) {
    try shadow.set(clusters, to: count)
  }

  /// Forgets all counts: the new structure has only what is counted from now on, and new tables go to the end of
  /// the file. What the old structure looks like does not matter any more.
  func startCounting(refcountOrder: UInt32) throws(EngineError) {
    prologue.header.refcountOrder = refcountOrder
    try shadow.startAnew(order: UInt64(refcountOrder))
  }

  /// Leaves refcount blocks out that count nothing. False: there are none.
  @discardableResult func dropEmptyRefcountBlocks() throws(EngineError) -> Bool {
    try shadow.dropEmptyBlocks()
  }

  /// Host offset of neighbouring clusters that are free, now counted once. Their content is not said.
  func allocate(clusters: UInt64) throws(EngineError) -> UInt64 {
    try shadow.allocate(clusters: clusters).lowerBound << geometry.clusterBits
  }

  /// Host offset of new clusters that hold `bytes`, and zeros up to the end of the last one.
  func allocate(bytes: [UInt8]) throws(EngineError) -> UInt64 {
    let clusters = UInt64(bytes.count).dividedRoundingUp(by: geometry.clusterSize)
    let place = try allocate(clusters: clusters)
    var padded = bytes
    padded.append(
      contentsOf: repeatElement(0, count: Int(clusters * geometry.clusterSize) - bytes.count))
    try file.write(bytes: padded, at: place)
    return place
  }

  /// The clusters that `byteCount` bytes from a cluster's start on take.
  func clusters(at hostOffset: UInt64, byteCount: UInt64) -> Range<UInt64> {
    Qcow2State.clusters(hostOffset, byteCount, geometry)
  }

  /// Writes what is new, switches over, and lets go of what is free.
  func commit() throws(EngineError) {
    if shadow.hasChanged {
      let table = try shadow.write()
      prologue.header.refcountTableOffset = table.lowerBound << geometry.clusterBits
      prologue.header.refcountTableClusters = UInt32(table.count)
    }
    try prologue.header.validate()
    try file.flush()
    try Qcow2PrologueWriter.write(prologue, to: file)
    for run in shadow.freed { try forgetFree(run) }
  }

  private func forgetFree(_ run: Range<UInt64>) throws(EngineError) {
    var start = run.lowerBound
    for cluster in run where try count(of: cluster) != 0 {
      geometry.forget(start..<cluster, in: file)
      start = cluster + 1
    }
    geometry.forget(start..<run.upperBound, in: file)
  }
}

extension Qcow2Layer: BackingChanging {
  /// Changes metadata as a whole; on disk when it returns. Where `body` throws, nothing has changed.
  ///
  /// Held for all of it: the layer's lock. The caller holds the disk (`ImageChain.changingWhole`).
  func rewrite<T>(_ body: (Qcow2Rewrite) throws(EngineError) -> T) throws(EngineError) -> T {
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      try state.allocator.flush()
      let rewrite = try Qcow2Rewrite(state)
      let result = try body(rewrite)
      do throws(EngineError) {
        try rewrite.commit()
      } catch {
        // The header may be the old or the new one: what counts is what is there.
        try? reload(&state)
        throw error
      }
      try reload(&state)
      return result
    }
  }

  /// Takes all tables from the file again.
  func reload(_ state: inout Qcow2State) throws(EngineError) {
    do throws(EngineError) {
      let (wasMarked, recorder) = (state.hasMarkedDirty, state.recorder)
      let prologue = try Qcow2Prologue.read(from: file, toleratingDamage: state.prologue.toleratesDamage)
      state = try Qcow2State(prologue, file: file, dataFile: dataFile?.store, caches: caches)
      state.hasMarkedDirty = wasMarked
      (state.recorder, state.hasBegunRecording) = (recorder, recorder != nil)
      size.store(state.prologue.header.virtualSize, ordering: .relaxed)
    } catch {
      state.failure = error
      throw error
    }
  }

  func setBacking(_ backing: BackingReference?) throws(EngineError) {
    try rewrite { (rewrite) throws(EngineError) in rewrite.prologue.backing = backing }
  }
}
