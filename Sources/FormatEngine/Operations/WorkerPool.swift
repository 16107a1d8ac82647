import Glibc
import Synchronization

/// Runs the same work on several threads until all of them are done.
///
/// Plain threads, because all of it is blocking I/O: the caller's own thread is one of them.
public enum WorkerPool {
  /// As many as the machine has processors for this process, at least 1 and at most `limit`.
  public static func processorCount(atMost limit: Int = 8) -> Int {
    min(max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN))), limit)
  }

  /// Calls `work` on `threadCount` threads, with a shared flag that says when to stop early. Throws the
  /// first error that any of them threw, after all have ended.
  public static func run(
    threadCount: Int, _ work: @escaping @Sendable (_ stop: StopFlag) throws(EngineError) -> Void
  ) throws(EngineError) {
    let shared = SharedWork(work)
    var threads: [pthread_t] = []
    for _ in 1..<max(threadCount, 1) {
      if let thread = startThread(shared) { threads.append(thread) }
    }
    shared.runOnce()
    for thread in threads { pthread_join(thread, nil) }
    if let error = shared.firstError { throw error }
  }

  /// A thread that cannot be started is work for the others.
  private static func startThread(_ shared: SharedWork) -> pthread_t? {
    var thread = pthread_t()
    let argument = unsafe Unmanaged.passRetained(shared)
    let result = unsafe pthread_create(&thread, nil, workerThreadBody, argument.toOpaque())
    if result != 0 {
      unsafe argument.release()
      return nil
    }
    return thread
  }
}

/// Set once when the work of all threads is to end early.
public final class StopFlag: Sendable {
  private let flag = Atomic<Bool>(false)
  public var isSet: Bool { flag.load(ordering: .acquiring) }
  public func set() { flag.store(true, ordering: .releasing) }
}

private final class SharedWork: Sendable {
  private let work: @Sendable (StopFlag) throws(EngineError) -> Void
  private let stop = StopFlag()
  private let error = Guarded<EngineError?>(nil)

  init(_ work: @escaping @Sendable (StopFlag) throws(EngineError) -> Void) { self.work = work }

  var firstError: EngineError? { error.withLock { $0 } }

  func runOnce() {
    do throws(EngineError) {
      try work(stop)
    } catch {
      let thrown = error
      self.error.withLock { if $0 == nil { $0 = thrown } }
      stop.set()
    }
  }
}

private func workerThreadBody(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  guard let argument = unsafe argument else { return nil }
  // SAFETY: startThread passed one retained SharedWork, which this thread now owns.
  unsafe Unmanaged<SharedWork>.fromOpaque(argument).takeRetainedValue().runOnce()
  return nil
}
