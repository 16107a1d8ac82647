public import FormatEngine

/// Counts what happens to all stores that lose their power together.
public final class CrashClock: Sendable {
  private let count = Guarded(0)

  public init() {}

  /// The events that have happened.
  public var now: Int { count.withLock { $0 } }

  fileprivate func tick() -> Int {
    count.withLock { count in
      count += 1
      return count - 1
    }
  }
}

/// A store that remembers what was written since which flush, and can say what a power cut would leave.
///
/// That is what `PowerCuts` says of one file.
public final class CrashStore: ByteStore {
  public typealias Event = FileEvent

  private struct State {
    var now: [UInt8]
    var events: [Event] = []
    /// When each of them happened, by the clock.
    var times: [Int] = []
  }

  private let initial: [UInt8]
  private let state: Guarded<State>
  private let clock: CrashClock

  /// `initial` is on disk. Stores with one clock lose their power at the same moment.
  public init(_ initial: [UInt8] = [], clock: CrashClock = CrashClock()) {
    self.initial = initial
    self.clock = clock
    state = Guarded(State(now: initial))
  }

  /// All that happened, in order.
  public var events: [Event] { state.withLock { $0.events } }
  public var eventCount: Int { state.withLock { $0.events.count } }
  /// What a reader sees without a power cut.
  public var content: [UInt8] { state.withLock { $0.now } }

  private func record(_ event: Event) {
    state.withLock { state in
      event.apply(to: &state.now)
      state.events.append(event)
      state.times.append(clock.tick())
    }
  }

  /// How many events had happened at a time of the clock.
  public func eventCount(at time: Int) -> Int { state.withLock { $0.times.count { $0 < time } } }

  public func byteCount() throws(EngineError) -> UInt64 { state.withLock { UInt64($0.now.count) } }
  public func allocatedByteCount() throws(EngineError) -> UInt64 { try byteCount() }
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
    state.withLock { state in
      guard offset < UInt64(state.now.count) else { return }
      let count = min(buffer.count, state.now.count - Int(offset))
      // SAFETY: `count` is bounded by both sides.
      unsafe state.now.withUnsafeBytes { raw in
        unsafe buffer.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: raw[Int(offset)..<Int(offset) + count]))
      }
    }
  }
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try check(offset, UInt64(bytes.count))
    record(.write(offset: Int(offset), bytes: unsafe Array(bytes)))
  }
  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try check(offset, count)
    record(.zeros(offset: Int(offset), count: Int(count)))
  }
  public func forget(at offset: UInt64, count: UInt64) {
    let end = min(content.count, Int(clamping: offset) + Int(clamping: count))
    if Int(clamping: offset) < end { record(.zeros(offset: Int(offset), count: end - Int(offset))) }
  }
  public func resize(to byteCount: UInt64) throws(EngineError) {
    try check(byteCount, 0)
    record(.resize(Int(byteCount)))
  }
  public func flush() throws(EngineError) { record(.flush) }
  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    let count = try byteCount()
    guard offset < count else { return StoredRun(isData: false, length: limit) }
    return StoredRun(isData: true, length: min(limit, count - offset))
  }
  public var spliceDescriptor: CInt? { nil }
  public var isWritable: Bool { true }

  private func check(_ offset: UInt64, _ count: UInt64) throws(EngineError) {
    guard offset <= GiB, count <= GiB else { throw EngineError(.tooLarge, "A crash store has at most 1 GiB") }
  }
}

extension CrashStore {
  /// What a power cut may leave.
  public struct CrashState: Sendable {
    /// Events before this one happened.
    public var cut: Int
    /// For messages: which writes were kept.
    public var story: String
    public var bytes: [UInt8]
  }

  /// Calls `body` with states that a power cut after `cut` events may leave, for every cut in `cuts`, as
  /// `PowerCuts.forEachState` does.
  public func forEachCrashState(
    cuts: some Sequence<Int>, random: inout SeededRandom, randomCount: Int = 2,
    _ body: (CrashState) throws -> Void
  ) rethrows {
    let history = PowerCuts(initial: [initial], steps: events.map { PowerCuts.Step(file: 0, event: $0) })
    try history.forEachState(cuts: cuts, random: &random, randomCount: randomCount) { state in
      // The store is always there.
      try body(CrashState(cut: state.cut, story: state.story, bytes: state.files[0] ?? []))
    }
  }
}
