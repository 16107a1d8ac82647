import Glibc

/// One thread hands requests to a queue of the kernel and looks what is done.
///
/// That is for bytes that lie as they are in one place of a file. What reads as zeros is filled in at once; all else,
/// such as what is packed, encrypted or in several places, or needs room first, goes through the chain on a few threads.
@safe final class KernelRequestQueue: RequestQueue, @unchecked Sendable {
  // @unchecked: all variables belong to the thread that calls `run`; the helpers read `slots` where it has handed one
  // of them over, and leaves it alone until they are done.

  /// As many as one queue of the kernel takes; more make nothing faster.
  static let maximumDepth = 1024
  /// Threads for what the kernel does not do by itself.
  private static let maximumHelperCount = 4

  /// A request that is at work.
  private struct Slot {
    var index = 0
    var guestOffset: UInt64 = 0
    var place: HostPlace?
  }

  let work: BenchmarkWork
  private let queue: any KernelQueue
  private var sequence: RequestSequence
  private let slots: UnsafeMutableBufferPointer<Slot>
  private var free: [Int]
  private var helpers: HelperThreads?
  private let helperCount: Int
  /// Requests that the kernel has.
  private var kernelCount = 0
  /// What the helpers have.
  private var helperWorkCount = 0
  private var isWatching = false
  private var failure: EngineError?

  private var watchTag: Int { unsafe slots.count }
  private var flushTag: Int { unsafe slots.count + 1 }

  /// `depth`: requests at work at a time; `queue` has room for that many.
  init(
    _ chain: ImageChain, _ options: BenchmarkOptions, _ queue: any KernelQueue, _ depth: Int
  ) throws(EngineError) {
    var options = options
    options.depth = depth
    self.queue = queue
    sequence = RequestSequence(options)
    free = Array((0..<depth).reversed())
    helperCount = min(depth, Self.maximumHelperCount)
    work = try BenchmarkWork(chain, options, slotCount: depth)
    unsafe slots = .allocate(capacity: depth)
    unsafe slots.initialize(repeating: Slot())
  }

  deinit { unsafe slots.deinitialize().deallocate() }

  /// To be called by the thread that made the queue of the kernel.
  func run() throws(EngineError) {
    let helpers = try HelperThreads { [weak self] (tag) throws(EngineError) in
      guard let self else { return }
      if tag == flushTag { return try work.chain.flush() }
      try work.transfer(unsafe slots[tag].index, slot: tag)
    }
    self.helpers = helpers
    let owner = pthread_self()
    try WorkerPool.run(threadCount: 1 + helperCount) { [self] (_) throws(EngineError) in
      guard pthread_equal(owner, pthread_self()) != 0 else { return helpers.serve() }
      defer { helpers.end() }
      try runRequests(helpers)
    }
  }

  private func runRequests(_ helpers: HelperThreads) throws(EngineError) {
    do throws(EngineError) {
      while !sequence.isDone {
        beginAll(helpers)
        if kernelCount + helperWorkCount > 0 { try finishSome(helpers) }
      }
    } catch {
      giveUp()
      throw error
    }
    if let failure { throw failure }
  }

  /// The queue itself failed. Nobody waits for ranges that are never given back; the kernel may still move bytes from and
  /// to the memory, which therefore stays until the process ends.
  private func giveUp() {
    for slot in unsafe slots.indices {
      guard work.options.kind != .read, let place = unsafe slots[slot].place else { continue }
      work.chain.endWriteInPlace(
        place, at: unsafe slots[slot].guestOffset, count: work.options.byteCount)
    }
    if kernelCount > 0 { _ = unsafe Unmanaged.passRetained(self) }
  }

  // MARK: Beginning

  /// Begins all that may begin now.
  private func beginAll(_ helpers: HelperThreads) {
    while true {
      switch sequence.next() {
      case .wait, .end: return
      case .transfer(let index): begin(index, helpers)
      case .flush:
        guard work.options.flushing?.drains == true else {
          hand(flushTag, helpers)
          continue
        }
        do throws(EngineError) { try work.chain.flush() } catch { fail(error) }
        sequence.finishFlush()
      }
    }
  }

  private func begin(_ index: Int, _ helpers: HelperThreads) {
    guard let slot = free.popLast() else { return }
    do throws(EngineError) {
      let offset = try work.guestOffset(index)
      unsafe slots[slot] = Slot(index: index, guestOffset: offset)
      switch work.options.kind {
      case .read: try beginRead(slot, at: offset, helpers)
      case .write: try beginWrite(slot, at: offset, helpers)
      }
    } catch {
      end(slot, error)
    }
  }

  private func beginRead(_ slot: Int, at offset: UInt64, _ helpers: HelperThreads) throws(EngineError) {
    let memory = unsafe work.buffers.place(slot)
    guard memory.count > 0 else { return end(slot, nil) }
    let found = try work.chain.locate(at: offset, limit: UInt64(memory.count))
    if found.readsAsZeros, found.extent.length == UInt64(memory.count) {
      unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
      return end(slot, nil)
    }
    guard let place = work.chain.placeToRead(found, count: memory.count),
      let descriptor = unsafe place.file.queueDescriptor(
        UnsafeRawBufferPointer(memory), at: place.offset, isWrite: false)
    else { return hand(slot, helpers) }
    unsafe slots[slot].place = place
    unsafe try queue.read(descriptor, into: memory, at: place.offset, tag: slot)
    kernelCount += 1
  }

  private func beginWrite(_ slot: Int, at offset: UInt64, _ helpers: HelperThreads) throws(EngineError) {
    let memory = unsafe UnsafeRawBufferPointer(work.buffers.place(slot))
    guard memory.count > 0 else { return end(slot, nil) }
    guard let place = try work.chain.beginWriteInPlace(at: offset, count: memory.count) else {
      return hand(slot, helpers)
    }
    guard let descriptor = unsafe place.file.queueDescriptor(memory, at: place.offset, isWrite: true) else {
      work.chain.endWriteInPlace(place, at: offset, count: memory.count)
      return hand(slot, helpers)
    }
    do throws(EngineError) {
      unsafe try queue.write(descriptor, memory, at: place.offset, tag: slot)
    } catch {
      work.chain.endWriteInPlace(place, at: offset, count: memory.count)
      throw error
    }
    unsafe slots[slot].place = place
    kernelCount += 1
  }

  /// `tag`: a slot, or `flushTag`.
  private func hand(_ tag: Int, _ helpers: HelperThreads) {
    helperWorkCount += 1
    helpers.hand(tag)
  }

  // MARK: Ending

  /// Waits until something that is at work is done.
  private func finishSome(_ helpers: HelperThreads) throws(EngineError) {
    if helperWorkCount > 0 {
      if collect(helpers) { return try queue.submit() }
      if kernelCount == 0 {
        if !helpers.performWithoutThreads() { helpers.signal.wait() }
      } else if !isWatching {
        try queue.watch(helpers.signal.descriptor, tag: watchTag)
        isWatching = true
      }
    }
    if kernelCount > 0 {
      try queue.wait { [self] (tag, result) in
        if tag == watchTag { isWatching = false } else { finishTransfer(tag, result, helpers) }
      }
    }
    _ = collect(helpers)
  }

  /// Whether helpers had done anything.
  private func collect(_ helpers: HelperThreads) -> Bool {
    guard helperWorkCount > 0 else { return false }
    // Before the look: what is done after it raises the signal once more.
    helpers.signal.clear()
    let results = helpers.collect()
    if results.isEmpty { return false }
    for result in results {
      helperWorkCount -= 1
      if result.tag == flushTag {
        if let failure = result.failure { fail(failure) }
        sequence.finishFlush()
      } else {
        end(result.tag, result.failure)
      }
    }
    return true
  }

  /// The kernel is done with a request: `result` bytes, or a negative `errno`.
  private func finishTransfer(_ slot: Int, _ result: Int, _ helpers: HelperThreads) {
    kernelCount -= 1
    let request = unsafe slots[slot]
    guard let place = request.place else { return }
    let count = work.options.byteCount
    if work.options.kind != .read { work.chain.endWriteInPlace(place, at: request.guestOffset, count: count) }
    unsafe slots[slot].place = nil
    if result == count { return end(slot, nil) }
    if result >= 0 || result == -Int(EAGAIN) || result == -Int(EINTR) {
      // Not all of it, as at the end of a file: the chain knows what comes then.
      return hand(slot, helpers)
    }
    let tried = work.options.kind == .read ? "Could not read from" : "Could not write to"
    var error = EngineError.systemCall(
      "\(tried) '\(place.file.path)'", errno: CInt(-result), path: place.file.path)
    error.offset = request.guestOffset
    end(slot, error)
  }

  /// A request is over.
  private func end(_ slot: Int, _ error: EngineError?) {
    if let error { fail(error) }
    unsafe slots[slot].place = nil
    free.append(slot)
    sequence.finishTransfer()
  }

  private func fail(_ error: EngineError) {
    if failure == nil { failure = error }
    sequence.stop()
  }
}
