import Glibc
import Synchronization

/// How two disks differ.
public enum Difference: Equatable, Sendable {
  /// The first sector whose bytes differ.
  case content(at: UInt64)
  /// The first place where only one of them is allocated, zero, or packed.
  case status(at: UInt64)

  public var offset: UInt64 {
    switch self {
    case .content(let offset), .status(let offset): offset
    }
  }
}

/// Compares what guests read of two disks. The shorter one is taken to go on with zeros.
public enum Comparer {
  /// How the message of an error begins that came from looking up where bytes are.
  public static let statusFailure = "Sector allocation test failed"

  /// The first difference inside `range`, nil where there is none. `comparingStatus`: also of allocation.
  ///
  /// Several threads read at once. Errors come with the offset, and `path` says which disk it was.
  public static func firstDifference(
    between a: ImageChain, and b: ImageChain, in range: Range<UInt64>, comparingStatus: Bool = false,
    threadCount: Int = WorkerPool.processorCount(), progress: Progress = .none
  ) throws(EngineError) -> Difference? {
    let work = CompareWork(a, b, range, comparingStatus, progress)
    do throws(EngineError) {
      try WorkerPool.run(threadCount: threadCount) { (stop) throws(EngineError) in
        let worker = CompareWorker(work)
        do throws(EngineError) {
          while !stop.isSet, let segment = try work.nextSegment() { try worker.compare(segment) }
        } catch {
          work.report(error)
          throw error
        }
      }
    } catch {
      // All that lies before has been compared: who goes through both disks alone meets the same first.
      let failure = work.firstFailure ?? error
      guard let found = work.firstDifference, found.offset <= failure.offset ?? 0 else { throw failure }
      return found
    }
    return work.firstDifference
  }
}

/// What the workers share: the way through the disks and the first difference so far.
private final class CompareWork: Sendable {
  let a: ImageChain
  let b: ImageChain
  let comparingStatus: Bool
  private let range: Range<UInt64>
  private let progress: Progress
  private let cursor: Guarded<Cursor>
  private let done = Atomic<UInt64>(0)
  private let found = Guarded<Difference?>(nil)
  private let failed = Guarded<EngineError?>(nil)
  /// Nothing from here on matters any more.
  private let end: Atomic<UInt64>

  static let segmentByteCount = 2 * MiB

  private struct Cursor {
    var offset: UInt64
    /// What was last found, from `offset` on: a long run is looked up once, not once a segment.
    var ahead: Statuses?
  }

  /// A piece for one worker.
  struct Segment {
    var range: Range<UInt64>
    /// What both disks say of all of it, where they say one thing.
    var statuses: Statuses?
  }

  init(
    _ a: ImageChain, _ b: ImageChain, _ range: Range<UInt64>, _ comparingStatus: Bool, _ progress: Progress
  ) {
    self.a = a
    self.b = b
    self.range = range
    self.comparingStatus = comparingStatus
    self.progress = progress
    cursor = Guarded(Cursor(offset: range.lowerBound))
    end = Atomic(range.upperBound)
  }

  var firstDifference: Difference? { found.withLock { $0 } }
  /// The one of the lowest offset; what has none, such as the end that was asked for, comes first.
  var firstFailure: EngineError? { failed.withLock { $0 } }
  var currentEnd: UInt64 { end.load(ordering: .acquiring) }

  func report(_ difference: Difference) {
    found.withLock { found in
      if let found, found.offset <= difference.offset { return }
      found = difference
      end.store(difference.offset, ordering: .releasing)
    }
  }

  func report(_ failure: EngineError) {
    failed.withLock { failed in
      if let failed, failed.offset ?? 0 <= failure.offset ?? 0 { return }
      failed = failure
    }
  }

  /// The next piece to look at. Long runs of zeros in both are passed over here.
  func nextSegment() throws(EngineError) -> Segment? {
    let (segment, skipped) = try cursor.withLock { (cursor) throws(EngineError) in
      let start = cursor.offset
      while true {
        // Asked for once: a difference that another worker finds brings it down.
        let end = currentEnd
        guard cursor.offset < end else { break }
        let limit = end - cursor.offset
        let pair = try known(cursor.ahead, at: cursor.offset, limit: limit)
        let skipped = cursor.offset - start
        guard pair.bothZero, !pair.differ, pair.length >= Self.segmentByteCount || pair.length >= limit else {
          return (Optional(Self.take(pair, &cursor, end)), skipped)
        }
        cursor = Cursor(offset: cursor.offset + pair.length)
      }
      return (nil, cursor.offset - start)
    }
    if skipped > 0 { try finish(skipped) }
    return segment
  }

  /// Cuts a segment off; it ends at a multiple of the segment's size.
  private static func take(_ pair: Statuses, _ cursor: inout Cursor, _ end: UInt64) -> Segment {
    let start = cursor.offset
    let next = max(min(end, (start + 1).aligned(upTo: segmentByteCount)), start + 1)
    let count = next - start
    cursor = Cursor(offset: next, ahead: pair.length > count ? pair.from(count) : nil)
    return Segment(range: start..<next, statuses: pair.length >= count ? pair.first(count) : nil)
  }

  func finish(_ byteCount: UInt64) throws(EngineError) {
    let now = done.add(byteCount, ordering: .relaxed).newValue
    try progress.step(now, of: UInt64(range.count))
  }

  /// What both say of the bytes from `position` on, as far as both say one thing.
  struct Statuses {
    var a: LocatedExtent
    var b: LocatedExtent
    var length: UInt64
    var differ: Bool
    var bothZero: Bool { a.readsAsZeros && b.readsAsZeros }

    func from(_ byteCount: UInt64) -> Statuses {
      var rest = self
      (rest.a, rest.b) = (a.from(byteCount), b.from(byteCount))
      rest.length -= byteCount
      return rest
    }

    func first(_ byteCount: UInt64) -> Statuses {
      var head = self
      head.length = byteCount
      return head
    }
  }

  /// `statuses` where they are known, else looked up.
  func known(_ statuses: Statuses?, at position: UInt64, limit: UInt64) throws(EngineError) -> Statuses {
    if let statuses { return statuses }
    return try self.statuses(at: position, limit: limit)
  }

  private func statuses(at position: UInt64, limit: UInt64) throws(EngineError) -> Statuses {
    let first = try status(of: a, at: position, limit)
    let second = try status(of: b, at: position, first.extent.length)
    let differ =
      comparingStatus
      && MapEntry(first, of: a.members[first.depth], at: position).status
        != MapEntry(second, of: b.members[second.depth], at: position).status
    return Statuses(a: first, b: second, length: second.extent.length, differ: differ)
  }

  /// Past the end of a disk there is nothing: zeros, up to the limit.
  private func status(of chain: ImageChain, at position: UInt64, _ limit: UInt64) throws(EngineError)
    -> LocatedExtent
  {
    guard position < chain.virtualSize else {
      return LocatedExtent(depth: 0, extent: Extent(.below, length: limit))
    }
    do throws(EngineError) {
      return try chain.extent(at: position, limit: min(limit, chain.virtualSize - position))
    } catch {
      var failure = error.whileTrying(Comparer.statusFailure)
      failure.path = chain.members[0].name
      failure.offset = position
      throw failure
    }
  }
}

/// One thread's buffers. Small ones: both stay in the processor's cache while they are compared.
private final class CompareWorker {
  private let work: CompareWork
  private let first = AlignedBuffer(byteCount: 256 << 10)
  private let second = AlignedBuffer(byteCount: 256 << 10)

  init(_ work: CompareWork) { self.work = work }

  func compare(_ segment: CompareWork.Segment) throws(EngineError) {
    let range = segment.range
    var position = range.lowerBound
    while position < min(range.upperBound, work.currentEnd) {
      let pair = try work.known(segment.statuses, at: position, limit: range.upperBound - position)
      if pair.differ { return work.report(.status(at: position)) }
      var piece: UInt64 = 0
      while !pair.bothZero && piece < pair.length {
        let count = Int(min(pair.length - piece, UInt64(first.byteCount)))
        if let difference = try compare(pair, at: position, from: piece, count) {
          return work.report(.content(at: difference))
        }
        piece += UInt64(count)
      }
      position += pair.length
    }
    try work.finish(UInt64(range.count))
  }

  /// The offset of the first sector that differs in a piece of two extents.
  private func compare(_ pair: CompareWork.Statuses, at start: UInt64, from done: UInt64, _ count: Int)
    throws(EngineError) -> UInt64?
  {
    let offset = start + done
    if pair.a.readsAsZeros || pair.b.readsAsZeros {
      let bytes = unsafe first.prefix(count)
      let (chain, found) = pair.a.readsAsZeros ? (work.b, pair.b) : (work.a, pair.a)
      unsafe try read(chain, found.from(done), at: offset, into: bytes)
      return unsafe Self.firstSector(of: UnsafeRawBufferPointer(bytes), unlike: nil).map { offset + $0 }
    }
    let (a, b) = unsafe (first.prefix(count), second.prefix(count))
    unsafe try read(work.a, pair.a.from(done), at: offset, into: a)
    unsafe try read(work.b, pair.b.from(done), at: offset, into: b)
    return unsafe Self.firstSector(of: UnsafeRawBufferPointer(a), unlike: UnsafeRawBufferPointer(b))
      .map { offset + $0 }
  }

  private func read(
    _ chain: ImageChain, _ found: LocatedExtent, at offset: UInt64, into bytes: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    do throws(EngineError) {
      unsafe try chain.read(found, at: offset, into: bytes)
    } catch {
      var failure = error
      failure.path = chain.members[0].name
      failure.offset = offset
      throw failure
    }
  }

  /// Where the first sector of 512 bytes starts that differs from `other`, or without one is not zero.
  private static func firstSector(of bytes: UnsafeRawBufferPointer, unlike other: UnsafeRawBufferPointer?)
    -> UInt64?
  {
    // SAFETY: both buffers have the same count, and every range ends inside of it.
    func isSame(_ range: Range<Int>) -> Bool {
      let piece = unsafe UnsafeRawBufferPointer(rebasing: bytes[range])
      guard let other = unsafe other else { return unsafe ZeroScan.isZero(piece) }
      guard let a = piece.baseAddress,
        let b = unsafe UnsafeRawBufferPointer(rebasing: other[range]).baseAddress
      else { return true }
      return unsafe memcmp(a, b, range.count) == 0
    }
    if isSame(0..<bytes.count) { return nil }
    var start = 0
    while start < bytes.count {
      let end = min(start + 512, bytes.count)
      if !isSame(start..<end) { return UInt64(start) }
      start = end
    }
    return nil
  }
}

extension LocatedExtent {
  /// The same without its first `byteCount` bytes.
  fileprivate func from(_ byteCount: UInt64) -> LocatedExtent {
    var rest = self
    rest.extent.length -= byteCount
    if let host = extent.hostOffset, extent.source == .stored { rest.extent.hostOffset = host + byteCount }
    return rest
  }
}
