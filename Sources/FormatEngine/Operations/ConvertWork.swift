/// A piece that one worker copies; it starts and ends at the same offsets in all sources taken as one and in
/// the target.
struct ConvertSegment {
  /// Counts from 0 in the order of the offsets.
  let number: UInt64
  let offset: UInt64
  let length: UInt64
  /// How much of the whole work it is.
  let weight: UInt64
}

/// How the workers write.
enum WritingOrder {
  /// In the order of the disk, because that is where clusters come to lie.
  case inTurn
  /// Whoever is ready: each byte has its place. Still one at a time, since writers of one file wait for each
  /// other in the kernel, and cost more there.
  case oneByOne
  /// Many at once: for devices, which gain from it.
  case atOnce
}

/// What the workers share: the way through the sources.
final class ConvertWork: Sendable {
  let source: ConcatenatedDisks
  /// What is read instead, where the source is a pipe.
  let stream: StreamedSource?
  let salvaged: SalvagedDisks?
  let target: ImageChain
  let options: ConvertOptions
  let packing: (any CompressedWriting)?
  let turns = TurnOrder()
  private let rate: RateLimit?
  let writing: WritingOrder
  private let sharesBlocks: Bool
  let hostCopies = HostCopyResults()
  /// Guest bytes that the target stores without those around them.
  let storedUnit: UInt64
  /// Zeros in the target stay zeros, whatever comes to lie below it.
  let marksZeros: Bool
  /// Bytes of one segment: enough for large requests, little enough for eight threads' buffers. Those whose blocks are shared may
  /// be longer, a multiple of it.
  let segmentByteCount: UInt64
  /// Bytes of the longest segment: what a worker's buffer has room for.
  let longestSegmentByteCount: UInt64
  private let progress: Progress
  private let cursor = Guarded(Cursor())
  private let pace = Guarded(Pace())

  private struct Cursor {
    var offset: UInt64 = 0
    var nextNumber: UInt64 = 0
  }

  /// How far the work is.
  private struct Pace {
    var done: UInt64 = 0
    /// Nil: nobody asked before the work began. It is measured by the place on the disk then.
    var copiedByteCount: UInt64?
  }

  init(
    _ source: ConcatenatedDisks, stream: StreamedSource? = nil, _ target: ImageChain,
    _ options: ConvertOptions, _ progress: Progress
  ) throws(EngineError) {
    self.source = source
    self.stream = stream
    salvaged = options.salvage.map { SalvagedDisks(source, report: $0) }
    self.target = target
    self.options = options
    self.progress = progress
    rate = options.rateLimit.map(RateLimit.init)
    packing = try Self.packing(of: target, options)
    sharesBlocks = Self.mayShareBlocks(target, options)
    let isSequential = packing?.needsAscendingOffsets == true || target.members[0].file.isSequential
    // A target that grows does so while nobody else writes.
    let mayBeAtOnce = options.allowsAnyOrder && !isSequential && stream == nil
    writing = mayBeAtOnce ? .atOnce : isSequential || target.top.clusterSize > 0 ? .inTurn : .oneByOne
    let layer = target.top as? any BackingChanging
    storedUnit = layer?.storedUnit ?? max(target.top.clusterSize, 512)
    marksZeros = layer?.marksZeros ?? false
    let wholeUnits = if case .differences = options.scope { storedUnit } else { UInt64(512) }
    let segment =
      packing.map { max($0.compressionUnit, Self.packedSegmentByteCount) }
      ?? max(Self.segmentByteCount(forClusterSize: target.top.clusterSize), wholeUnits)
    segmentByteCount = Self.raised(segment, toClustersOf: source)
    longestSegmentByteCount =
      sharesBlocks && packing == nil && Self.sharedSegmentByteCount.isMultiple(of: segmentByteCount)
      ? Self.sharedSegmentByteCount : segmentByteCount
    // Whoever feeds a pipe may take its time: a signal and an error of the target are heard meanwhile.
    stream?.whileWaiting { [turns] () throws(EngineError) in
      try progress.proceed()
      if let failure = turns.failure { throw failure }
    }
  }

  /// Whole clusters, so that none is made by one piece and filled up by another, but not where they are so large
  /// that a buffer for one in each thread would take the memory: VHDX has blocks of 256 MiB, Parallels clusters of 2 GiB.
  static func segmentByteCount(forClusterSize clusterSize: UInt64) -> UInt64 {
    clusterSize <= largestWholeCluster ? max(clusterSize, usualSegmentByteCount) : usualSegmentByteCount
  }

  /// Packed clusters of the source are not to be unpacked by two workers, each for its part.
  private static func raised(_ segment: UInt64, toClustersOf source: ConcatenatedDisks) -> UInt64 {
    let clusterSize = source.largestClusterSize
    let isFit = clusterSize <= largestPackedCluster && clusterSize.isMultiple(of: segment)
    return isFit ? max(clusterSize, segment) : segment
  }

  /// What may have buffers: an image that is changed in whole clusters of 64 MiB is not to take them eight times.
  var largestThreadCount: Int {
    let byteCount = longestSegmentByteCount * (newBacking == nil ? 1 : 2)
    return max(1, Int(Self.maximumBufferByteCount / byteCount))
  }

  private static let maximumBufferByteCount = 256 * MiB
  private static let sharedSegmentByteCount = 4 * MiB
  /// Smaller ones would show steps of progress that qemu-img does not.
  private static let usualSegmentByteCount = MiB
  /// Less, since packing takes longer than handing over, and has contexts of its own.
  private static let packedSegmentByteCount = 256 * KiB
  /// Of qcow2.
  private static let largestPackedCluster = 2 * MiB
  /// What Hyper-V's disks have.
  private static let largestWholeCluster = 32 * MiB

  /// What packs units for the target, nil where they are stored as they are.
  private static func packing(of target: ImageChain, _ options: ConvertOptions) throws(EngineError)
    -> (any CompressedWriting)?
  {
    guard let layer = target.top as? any CompressedWriting else {
      if options.compress { throw .unsupported("Compression not supported for this file format") }
      return nil
    }
    return switch layer.unitPacking {
    case .never: nil
    case .onRequest: options.compress ? layer : nil
    case .always: layer
    }
  }

  /// The next piece with something to do, nil at the end. Long runs of zeros that need nothing to be done
  /// are passed over here, whatever their length.
  ///
  /// What comes out of a pipe is in `buffer` then.
  func nextSegment(into buffer: AlignedBuffer) throws(EngineError) -> ConvertSegment? {
    if let stream { return try nextSegment(of: stream, into: buffer) }
    let isSurveyed = pace.withLock { $0.copiedByteCount != nil }
    return try cursor.withLock { (cursor) throws(EngineError) in
      let start = cursor.offset
      try skipNothing(&cursor.offset)
      try report(isSurveyed ? 0 : cursor.offset - start)
      guard cursor.offset < source.byteCount else { return nil }
      // Pieces end at multiples of the segment, so that no two share a cluster (that is not too large).
      let end = min((cursor.offset + 1).raised(to: nextByteCount), source.byteCount)
      let segment = ConvertSegment(
        number: cursor.nextNumber, offset: cursor.offset, length: end - cursor.offset,
        weight: isSurveyed ? try copiedByteCount(of: cursor.offset..<end) : end - cursor.offset)
      cursor.offset = end
      cursor.nextNumber += 1
      return segment
    }
  }

  /// Blocks that are shared pass through no buffer, and what each segment costs are system calls. What cannot be shared then, zeros
  /// that are stored and clusters that are packed, does touch all of the longer buffer.
  private var nextByteCount: UInt64 {
    sharedUnit >= ConvertWorker.smallestSampledUnit && hostCopies.isWorking
      ? longestSegmentByteCount : segmentByteCount
  }

  /// The next piece of a pipe that is not zeros, read while the lock is held: pipes are read by one at a time.
  private func nextSegment(of stream: StreamedSource, into buffer: AlignedBuffer) throws(EngineError)
    -> ConvertSegment?
  {
    try cursor.withLock { (cursor) throws(EngineError) in
      try progress.proceed()
      let start = cursor.offset
      if !mustWriteZeros && options.sparseByteCount > 0 {
        cursor.offset += try stream.skipZeros(wholeUnitsOf: segmentByteCount)
      }
      let offset = cursor.offset
      let length = unsafe try stream.read(
        into: buffer.prefix(Int((offset + 1).raised(to: segmentByteCount) - offset)))
      guard length > 0 else { return nil }
      cursor.offset += length
      cursor.nextNumber += 1
      return ConvertSegment(
        number: cursor.nextNumber - 1, offset: offset, length: length, weight: cursor.offset - start)
    }
  }

  /// What lies at an offset of all sources taken as one.
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> ConcatenatedDisks.Found {
    if let salvaged { return try salvaged.extent(at: offset, limit: limit) }
    return try source.extent(at: offset, limit: limit)
  }

  private func skipNothing(_ offset: inout UInt64) throws(EngineError) {
    while offset < source.byteCount {
      try progress.proceed()
      let found = try extent(at: offset, limit: source.byteCount - offset)
      let idle = try idleByteCount(found.located, at: offset)
      guard idle > 0 else { return }
      let end = offset + idle
      // Only whole segments: what remains shares one with other work.
      let next = end == source.byteCount ? end : end.floored(to: segmentByteCount)
      guard next > offset else { return }
      offset = next
    }
  }

  /// Whether the target has these bytes already.
  func needsNothing(_ found: LocatedExtent) -> Bool {
    switch options.scope {
    case .everything: found.readsAsZeros && options.targetReadsAsZeros && options.sparseByteCount > 0
    case .topLayer: found.depth > 0
    case .upperLayers(let count):
      // Nothing at a lesser depth: a layer in between is too short, and what it has not reads as zeros.
      found.depth == count - 1 && found.extent.source == .below
    case .differences(let backing): found.isStoredAtTop || backing.isSame(found)
    }
  }

  /// How many bytes of an extent that starts at `offset` the target has already; 0: not even the first.
  func idleByteCount(_ found: LocatedExtent, at offset: UInt64) throws(EngineError) -> UInt64 {
    if needsNothing(found) { return found.extent.length }
    guard let newBacking else { return 0 }
    let new = try newBacking.locate(at: offset, limit: found.extent.length)
    return newBacking.isSame(found, new) ? new.extent.length : 0
  }

  var newBacking: NewBacking? {
    if case .differences(let backing) = options.scope { backing } else { nil }
  }

  /// False: only what is stored will still read as zeros over another backing file.
  var canLeaveOutZeros: Bool { newBacking == nil || marksZeros }

  /// Where bytes lie that the host may copy as they are, without anybody looking at them; nil where they have to pass through
  /// here.
  func placeToCopy(_ found: ConcatenatedDisks.Found, count: Int) -> HostPlace? {
    guard options.copiesInHost, target.top.isCopiedByHost, target.top.cipher == nil,
      found.disk.layers.indices.contains(found.located.depth),
      found.disk.layers[found.located.depth].isCopiedByHost
    else { return nil }
    return placeOfOriginal(found, count: count)
  }

  /// Where bytes lie whose blocks the target may share.
  func placeToShare(_ found: ConcatenatedDisks.Found, count: Int) -> HostPlace? {
    guard sharesBlocks, found.disk.layers.indices.contains(found.located.depth) else { return nil }
    return placeOfOriginal(found, count: count)
  }

  private func placeOfOriginal(_ found: ConcatenatedDisks.Found, count: Int) -> HostPlace? {
    guard let place = found.disk.placeToRead(found.located, count: count),
      !hostCopies.isRefused(from: place.file)
    else { return nil }
    return place
  }

  /// Guest bytes of which it is enough to know that one is no zero, where the target shares blocks with the source: what it
  /// has as a whole, and what the user calls too short for a run of zeros. Blocks that are shared take no room, so that
  /// zeros beside data may stay among them.
  var sharedUnit: UInt64 { max(options.sparseByteCount, min(target.top.clusterSize, 64 * KiB)) }

  /// Encrypted bytes are others; what could not be read is not what lies there; `-S 0` wants room for all, and what the target
  /// has set aside for its disk is to stay its own.
  private static func mayShareBlocks(_ target: ImageChain, _ options: ConvertOptions) -> Bool {
    guard options.sharesBlocks, options.salvage == nil, options.sparseByteCount > 0, target.top.cipher == nil
    else { return false }
    let member = target.members[0]
    let stores = [member.file] + ((member.layer as? any SelfDescribing)?.extraFiles.map(\.store) ?? [])
    guard let room = try? stores.reduce(UInt64(0), { try $0 + $1.allocatedByteCount() }) else { return false }
    return room <= target.virtualSize / 2
  }

  /// Zeros of the target are stored as other units are.
  var mustPackZeros: Bool { mustWriteZeros && packing?.unitPacking == .always }

  /// Zeros in the target are not there by themselves.
  var mustWriteZeros: Bool {
    guard case .everything = options.scope else { return true }
    return !options.targetReadsAsZeros
  }

  // MARK: Progress

  /// What has to be known before the first byte is copied.
  func survey() throws(EngineError) {
    try salvaged?.survey()
    guard progress.isWatched, newBacking == nil, stream == nil else { return }
    let byteCount = try copiedByteCount(of: 0..<source.byteCount)
    pace.withLock { $0.copiedByteCount = byteCount }
  }

  /// Bytes of a range that are read and written. Those that the tables say are zeros take no time.
  private func copiedByteCount(of range: Range<UInt64>) throws(EngineError) -> UInt64 {
    var position = range.lowerBound
    var count: UInt64 = 0
    while position < range.upperBound {
      try progress.proceed()
      let found = try extent(at: position, limit: range.upperBound - position).located
      if !needsNothing(found), !found.readsAsZeros || options.sparseByteCount == 0 {
        count += found.extent.length
      }
      position += found.extent.length
    }
    return count
  }

  /// Waits until these bytes may be written.
  func waitForRate(_ byteCount: UInt64) throws(EngineError) {
    try rate?.wait(for: byteCount) { () throws(EngineError) in try progress.proceed() }
  }

  func finish(_ segment: ConvertSegment) throws(EngineError) { try report(segment.weight) }

  /// In its lock, so that steps are shown in their order.
  private func report(_ weight: UInt64) throws(EngineError) {
    guard weight > 0 else { return try progress.proceed() }
    try pace.withLock { (pace) throws(EngineError) in
      pace.done += weight
      guard let stream else {
        return try progress.step(pace.done, of: pace.copiedByteCount ?? source.byteCount)
      }
      // Nobody knows how far it is to an end that is not known.
      if let total = stream.byteCount { try progress.step(pace.done, of: total) }
    }
  }
}
