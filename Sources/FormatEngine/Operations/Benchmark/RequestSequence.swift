/// What comes next in a benchmark, and what is at work now. It moves no bytes, so that its rules stand alone.
struct RequestSequence: Sendable {
  /// What is to be done next.
  enum Step: Equatable {
    /// The request of this number, from 0 on.
    case transfer(Int)
    case flush
    /// Nothing until something that is at work is done.
    case wait
    case end
  }

  private let requestCount: Int
  private let depth: Int
  private let flushing: BenchmarkOptions.Flushing?
  private var nextIndex = 0
  /// The request before which the last flush came.
  private var flushedBefore: Int?
  private var transferCount = 0
  private var flushCount = 0
  private var isStopped = false

  init(_ options: BenchmarkOptions) {
    requestCount = options.requestCount
    depth = max(options.depth, 1)
    flushing = options.flushing
  }

  /// Whether all is done: nothing more comes, and nothing is at work.
  var isDone: Bool { (isStopped || isAtEnd) && transferCount == 0 && flushCount == 0 }

  private var isAtEnd: Bool { nextIndex == requestCount && !isTimeToFlush }

  private var isTimeToFlush: Bool {
    guard let flushing, nextIndex > 0, flushedBefore != nextIndex else { return false }
    return (requestCount - nextIndex) % flushing.interval == 0
  }

  /// Begins what comes next. Transfers and flushes are at work until `finish` is told.
  mutating func next() -> Step {
    if isStopped { return .end }
    let drains = flushing?.drains == true
    if drains && flushCount > 0 { return .wait }
    if isTimeToFlush {
      if drains && transferCount > 0 { return .wait }
      flushedBefore = nextIndex
      flushCount += 1
      return .flush
    }
    guard nextIndex < requestCount else { return .end }
    guard transferCount < depth else { return .wait }
    transferCount += 1
    defer { nextIndex += 1 }
    return .transfer(nextIndex)
  }

  mutating func finishTransfer() { transferCount -= 1 }

  mutating func finishFlush() { flushCount -= 1 }

  /// Nothing new begins: something failed.
  mutating func stop() { isStopped = true }
}

/// Where on the disk the requests of a benchmark lie.
struct RequestPlaces: Sendable {
  private let offset: UInt64
  private let step: UInt64
  private let virtualSize: UInt64

  init(_ options: BenchmarkOptions, virtualSize: UInt64) {
    offset = options.offset
    step = options.step
    self.virtualSize = virtualSize
  }

  /// The first one lies where it was asked for, even past the end; the others begin inside the disk.
  func guestOffset(_ index: Int) -> UInt64 {
    guard index > 0, virtualSize > 0 else { return index == 0 ? offset : 0 }
    // Both terms are below 2^63: an index and a step have 31 bits each, an offset 63.
    return (offset + UInt64(index) * step) % virtualSize
  }
}
