/// How fast a disk is read or written.
public enum Benchmark {
  /// Runs all requests and says how many seconds they took.
  ///
  /// The first error ends it: nothing new begins, what is at work is waited for, and the error is thrown.
  public static func run(on chain: ImageChain, _ options: BenchmarkOptions) throws(EngineError) -> Double {
    let queue = try queue(for: options, on: chain)
    let start = HostClock.steadySeconds
    try queue.run()
    return HostClock.steadySeconds - start
  }

  /// Throws where `chain` cannot be read and written in the way that the options want: the kernel does not have
  /// it, or the files are not opened for it.
  public static func check(_ chain: ImageChain, _ options: BenchmarkOptions) throws(EngineError) {
    guard options.transfer != .threads, !chain.members[0].hostFiles.isEmpty else { return }
    if options.transfer == .native && !chain.members[0].hostFiles.allSatisfy(\.isDirect) {
      throw .invalid(
        "aio=native was specified, but it requires cache.direct=on, which was not specified.")
    }
    _ = try kernelQueue(options.transfer, capacity: 1)
  }

  private static func queue(
    for options: BenchmarkOptions, on chain: ImageChain
  ) throws(EngineError) -> any RequestQueue {
    // Where no file of the host answers there is nothing that the kernel could carry out.
    guard options.transfer != .threads, !chain.members.allSatisfy(\.hostFiles.isEmpty) else {
      return try ThreadQueue(chain, options)
    }
    let depth = min(max(options.depth, 1), max(options.requestCount, 1), KernelRequestQueue.maximumDepth)
    return try KernelRequestQueue(chain, options, try kernelQueue(options.transfer, capacity: depth), depth)
  }

  private static func kernelQueue(
    _ method: TransferMethod, capacity: Int
  ) throws(EngineError) -> any KernelQueue {
    method == .native ? try NativeQueue(capacity: capacity) : try RingQueue(capacity: capacity)
  }
}

/// Carries out the requests of a benchmark, as many at a time as it was made for.
protocol RequestQueue {
  /// All of them, once. Throws the first error after everything that was begun has ended.
  func run() throws(EngineError)
}
