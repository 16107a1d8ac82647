import Synchronization

/// A thread for each request that is at work, which waits for it and then takes the next one.
final class ThreadQueue: RequestQueue, Sendable {
  /// As many as QEMU has for requests at most. With more, threads spend their time on waiting for each other.
  static let maximumThreadCount = 64

  private let work: BenchmarkWork
  private let cursor: any RequestCursor
  private let threadCount: Int

  init(_ chain: ImageChain, _ options: BenchmarkOptions) throws(EngineError) {
    var options = options
    options.depth = min(max(options.depth, 1), Self.maximumThreadCount, max(options.requestCount, 1))
    // A flush that lets requests go on beside it needs a thread, too.
    threadCount = options.depth + (options.flushing?.drains == false ? 1 : 0)
    work = try BenchmarkWork(chain, options, slotCount: threadCount)
    cursor =
      options.flushing == nil
      ? CountingCursor(options.requestCount) : SequenceCursor(RequestSequence(options))
  }

  func run() throws(EngineError) {
    let nextSlot = Atomic<Int>(0)
    try WorkerPool.run(threadCount: threadCount) { [self] (_) throws(EngineError) in
      let slot = nextSlot.wrappingAdd(1, ordering: .relaxed).oldValue
      do throws(EngineError) {
        try runRequests(slot: slot)
      } catch {
        cursor.stop()
        throw error
      }
    }
  }

  private func runRequests(slot: Int) throws(EngineError) {
    while true {
      let step = cursor.next()
      switch step {
      case .transfer(let index): try work.transfer(index, slot: slot)
      case .flush: try work.chain.flush()
      case .end, .wait: return
      }
      cursor.finish(step)
    }
  }
}

/// Hands out the steps of a sequence to several threads.
private protocol RequestCursor: AnyObject, Sendable {
  /// Waits where the sequence says so.
  func next() -> RequestSequence.Step
  func finish(_ step: RequestSequence.Step)
  /// Nothing new is handed out, and nobody waits any more.
  func stop()
}

/// Without flushes there is nothing to wait for, since there are no more threads than requests may be at work.
private final class CountingCursor: RequestCursor {
  private let count: Int
  private let nextIndex = Atomic<Int>(0)

  init(_ count: Int) { self.count = count }

  func next() -> RequestSequence.Step {
    let index = nextIndex.wrappingAdd(1, ordering: .relaxed).oldValue
    return index < count ? .transfer(index) : .end
  }

  func finish(_ step: RequestSequence.Step) {}

  func stop() { nextIndex.store(count, ordering: .relaxed) }
}

// @unchecked: the sequence is only touched inside `monitor.locked`.
private final class SequenceCursor: RequestCursor, @unchecked Sendable {
  private let monitor = Monitor()
  private var sequence: RequestSequence
  private var waiterCount = 0

  init(_ sequence: RequestSequence) { self.sequence = sequence }

  func next() -> RequestSequence.Step {
    monitor.locked {
      while true {
        let step = sequence.next()
        guard step == .wait else { return step }
        waiterCount += 1
        monitor.wait()
        waiterCount -= 1
      }
    }
  }

  func finish(_ step: RequestSequence.Step) {
    monitor.locked {
      if step == .flush { sequence.finishFlush() } else { sequence.finishTransfer() }
      if waiterCount > 0 { monitor.wakeAll() }
    }
  }

  func stop() {
    monitor.locked {
      sequence.stop()
      monitor.wakeAll()
    }
  }
}
