import Synchronization

/// How to copy disks into another image.
public struct ConvertOptions: Sendable {
  /// Store whole clusters packed.
  public var compress = false
  /// Zeros of at least this many bytes are not stored; 0 stores all of them.
  public var sparseByteCount: UInt64 = 4096
  public var threadCount = WorkerPool.processorCount()
  /// The target reads as zeros where nothing is written to it.
  public var targetReadsAsZeros = true
  /// The target lies over the file that lies under the source: only what the source's top layer stores
  /// is copied.
  public var targetHasBacking = false

  public init() {}
}

/// Copies the guest's bytes of one or more disks, one behind the other, into another image.
public enum Converter {
  /// Copies everything. The target must be large enough; the caller flushes it.
  public static func convert(
    from sources: [ImageChain], to target: ImageChain, _ options: ConvertOptions, progress: Progress = .none
  ) throws(EngineError) {
    let work = try ConvertWork(sources, target, options, progress)
    try WorkerPool.run(threadCount: options.threadCount) { (stop) throws(EngineError) in
      let worker = try ConvertWorker(work)
      while !stop.isSet, let segment = try work.nextSegment() {
        try worker.copy(segment)
        try work.finish(segment)
      }
    }
    if let packing = work.packing { try packing.finishCompressed() }
  }
}

/// A piece of one source that one worker copies.
struct ConvertSegment {
  let source: ImageChain
  /// In the source and in the target.
  let sourceOffset: UInt64
  let targetOffset: UInt64
  let length: UInt64
}

/// What the workers share: the way through the sources.
final class ConvertWork: Sendable {
  let target: ImageChain
  let options: ConvertOptions
  let packing: (any CompressedWriting)?
  /// Bytes of one segment: enough for large requests, little enough for eight threads' buffers.
  let segmentByteCount: UInt64
  private let sources: [ImageChain]
  private let total: UInt64
  private let progress: Progress
  private let cursor = Mutex(Cursor())
  private let done = Atomic<UInt64>(0)

  private struct Cursor {
    var source = 0
    var offset: UInt64 = 0
    /// Guest bytes of the sources before this one.
    var base: UInt64 = 0
  }

  init(
    _ sources: [ImageChain], _ target: ImageChain, _ options: ConvertOptions, _ progress: Progress
  ) throws(EngineError) {
    self.sources = sources
    self.target = target
    self.options = options
    self.progress = progress
    total = sources.reduce(0) { $0 + $1.virtualSize }
    packing = options.compress ? target.top as? any CompressedWriting : nil
    if options.compress && packing == nil {
      throw .unsupported("Compression not supported for this file format")
    }
    segmentByteCount = packing.map { max($0.compressionUnit, MiB) } ?? max(target.top.clusterSize, 2 * MiB)
  }

  /// The next piece with something to do, nil at the end. Long runs of zeros that need nothing to be done
  /// are passed over here, whatever their length.
  func nextSegment() throws(EngineError) -> ConvertSegment? {
    try cursor.withLock { (cursor) throws(EngineError) in
      while cursor.source < sources.count {
        let source = sources[cursor.source]
        try skipNothing(&cursor, in: source)
        guard cursor.offset < source.virtualSize else {
          cursor.base += source.virtualSize
          cursor.offset = 0
          cursor.source += 1
          continue
        }
        // Pieces end at multiples of the segment in the target, so that no two share a cluster.
        let targetOffset = cursor.base + cursor.offset
        let end = (targetOffset + 1).aligned(upTo: segmentByteCount)
        let length = min(end - targetOffset, source.virtualSize - cursor.offset)
        let segment = ConvertSegment(
          source: source, sourceOffset: cursor.offset, targetOffset: targetOffset, length: length)
        cursor.offset += length
        return segment
      }
      return nil
    }
  }

  private func skipNothing(_ cursor: inout Cursor, in source: ImageChain) throws(EngineError) {
    while cursor.offset < source.virtualSize {
      let found: LocatedExtent
      do throws(EngineError) {
        found = try source.extent(at: cursor.offset, limit: source.virtualSize - cursor.offset)
      } catch {
        throw error.whileTrying("error while reading block status at offset \(cursor.offset)")
      }
      let run = needsNothing(found) ? found.extent.length : 0
      // Only whole segments: what remains shares one with other work.
      let end = cursor.base + cursor.offset + run
      let isLast = cursor.offset + run == source.virtualSize && sources.count == cursor.source + 1
      let skipped =
        isLast
        ? run
        : (end.aligned(downTo: segmentByteCount)
          - min(end.aligned(downTo: segmentByteCount), cursor.base + cursor.offset))
      guard skipped > 0 else { return }
      cursor.offset += skipped
      try report(skipped)
    }
  }

  /// Whether the target has these bytes already.
  func needsNothing(_ found: LocatedExtent) -> Bool {
    if options.targetHasBacking { return found.depth > 0 || found.extent.source == .below }
    return found.readsAsZeros && options.targetReadsAsZeros && options.sparseByteCount > 0
  }

  func finish(_ segment: ConvertSegment) throws(EngineError) { try report(segment.length) }

  private func report(_ byteCount: UInt64) throws(EngineError) {
    let now = done.add(byteCount, ordering: .relaxed).newValue
    try progress.step(now, of: total)
  }
}
