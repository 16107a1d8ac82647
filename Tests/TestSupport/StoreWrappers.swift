public import FormatEngine
public import Glibc

/// What can be asked of a store.
public enum StoreCall: Sendable, Hashable, CaseIterable {
  case byteCount, read, write, writeZeros, resize, flush, run
}

/// A store that lets one call fail, or all from one on: the N-th of those that count.
public final class FaultStore: ByteStore {
  private struct State {
    var callCount = 0
    var failing: Int?
    var isForEver = false
    var calls = Set(StoreCall.allCases)
    var errno = EIO
    var isPaused = false
  }

  private let base: any ByteStore
  private let state = Guarded(State())

  public init(_ base: any ByteStore) { self.base = base }

  /// Calls since the last `arm`, of the kinds that count.
  public var callCount: Int { state.withLock { $0.callCount } }

  /// The `number`-th call from now on fails (0 is the next one), once or for ever; nil: none.
  public func arm(
    failing number: Int?, forEver: Bool = false, of calls: Set<StoreCall> = Set(StoreCall.allCases),
    errno: CInt = EIO
  ) {
    Tally.add("faults", number == nil ? 0 : 1)
    state.withLock {
      $0 = State(callCount: 0, failing: number, isForEver: forEver, calls: calls, errno: errno)
    }
  }

  /// While it is true, nothing fails and nothing counts.
  public var isPaused: Bool {
    get { state.withLock { $0.isPaused } }
    set { state.withLock { $0.isPaused = newValue } }
  }

  private func count(_ call: StoreCall) throws(EngineError) {
    let failure: CInt? = state.withLock { state in
      guard !state.isPaused, state.calls.contains(call) else { return nil }
      let number = state.callCount
      state.callCount += 1
      guard let failing = state.failing else { return nil }
      return number == failing || (state.isForEver && number > failing) ? state.errno : nil
    }
    if let failure { throw EngineError(.system(errno: failure), "Injected failure of \(call)") }
  }

  public func byteCount() throws(EngineError) -> UInt64 {
    try count(.byteCount)
    return try base.byteCount()
  }
  public func allocatedByteCount() throws(EngineError) -> UInt64 { try base.allocatedByteCount() }
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try count(.read)
    unsafe try base.read(into: buffer, at: offset)
  }
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try count(.write)
    unsafe try base.write(bytes, at: offset)
  }
  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try self.count(.writeZeros)
    try base.writeZeros(at: offset, count: count, freeing: freeing)
  }
  public func forget(at offset: UInt64, count: UInt64) { base.forget(at: offset, count: count) }
  public func resize(to byteCount: UInt64) throws(EngineError) {
    try count(.resize)
    try base.resize(to: byteCount)
  }
  public func flush() throws(EngineError) {
    try count(.flush)
    try base.flush()
  }
  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    try count(.run)
    return try base.run(at: offset, limit: limit)
  }
  public var spliceDescriptor: CInt? { nil }
  public var isWritable: Bool { base.isWritable }
}

/// A store that counts what is asked of it.
public final class CountingStore: ByteStore {
  private let base: any ByteStore
  private let counts = Guarded<[StoreCall: Int]>([:])
  private let bytes = Guarded<[StoreCall: UInt64]>([:])

  public init(_ base: any ByteStore) { self.base = base }

  public func callCount(_ call: StoreCall) -> Int { counts.withLock { $0[call] ?? 0 } }

  /// Bytes that were read, written or zeroed.
  public func byteCount(_ call: StoreCall) -> UInt64 { bytes.withLock { $0[call] ?? 0 } }

  public func reset() {
    counts.withLock { $0 = [:] }
    bytes.withLock { $0 = [:] }
  }

  private func count(_ call: StoreCall, _ byteCount: UInt64 = 0) {
    counts.withLock { $0[call, default: 0] += 1 }
    bytes.withLock { $0[call, default: 0] += byteCount }
  }

  public func byteCount() throws(EngineError) -> UInt64 {
    count(.byteCount)
    return try base.byteCount()
  }
  public func allocatedByteCount() throws(EngineError) -> UInt64 { try base.allocatedByteCount() }
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    count(.read, UInt64(buffer.count))
    unsafe try base.read(into: buffer, at: offset)
  }
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    count(.write, UInt64(bytes.count))
    unsafe try base.write(bytes, at: offset)
  }
  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    self.count(.writeZeros, count)
    try base.writeZeros(at: offset, count: count, freeing: freeing)
  }
  public func forget(at offset: UInt64, count: UInt64) { base.forget(at: offset, count: count) }
  public func resize(to byteCount: UInt64) throws(EngineError) {
    count(.resize)
    try base.resize(to: byteCount)
  }
  public func flush() throws(EngineError) {
    count(.flush)
    try base.flush()
  }
  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    count(.run)
    return try base.run(at: offset, limit: limit)
  }
  public var spliceDescriptor: CInt? { nil }
  public var isWritable: Bool { base.isWritable }
}
