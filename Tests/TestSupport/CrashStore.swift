public import FormatEngine
import Synchronization

/// Counts what happens to all stores that lose their power together.
public final class CrashClock: Sendable {
  private let count = Mutex(0)

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
/// What was flushed is on disk. What was written after the last flush may be there whole, in part (torn
/// at a sector boundary) or not at all, and no write waits for an earlier one.
public final class CrashStore: ByteStore {
  /// One step in the life of the file.
  public enum Event: Sendable {
    case write(offset: Int, bytes: [UInt8])
    case zeros(offset: Int, count: Int)
    case resize(Int)
    case flush
  }

  private struct State {
    var now: [UInt8]
    var events: [Event] = []
    /// When each of them happened, by the clock.
    var times: [Int] = []
  }

  private let initial: [UInt8]
  private let state: Mutex<State>
  private let clock: CrashClock

  /// `initial` is on disk. Stores with one clock lose their power at the same moment.
  public init(_ initial: [UInt8] = [], clock: CrashClock = CrashClock()) {
    self.initial = initial
    self.clock = clock
    state = Mutex(State(now: initial))
  }

  /// All that happened, in order.
  public var events: [Event] { state.withLock { $0.events } }
  public var eventCount: Int { state.withLock { $0.events.count } }
  /// What a reader sees without a power cut.
  public var content: [UInt8] { state.withLock { $0.now } }

  private func record(_ event: Event) {
    state.withLock { state in
      Self.apply(event, to: &state.now)
      state.events.append(event)
      state.times.append(clock.tick())
    }
  }

  /// How many events had happened at a time of the clock.
  public func eventCount(at time: Int) -> Int { state.withLock { $0.times.count { $0 < time } } }

  static func apply(_ event: Event, to bytes: inout [UInt8]) {
    switch event {
    case .write(let offset, let source):
      grow(&bytes, to: offset + source.count)
      bytes.overwrite(at: offset, with: source)
    case .zeros(let offset, let count):
      grow(&bytes, to: offset + count)
      bytes.overwriteWithZeros(at: offset, count: count)
    case .resize(let count):
      if bytes.count > count { bytes.removeLast(bytes.count - count) } else { grow(&bytes, to: count) }
    case .flush: break
    }
  }

  private static func grow(_ bytes: inout [UInt8], to count: Int) {
    if bytes.count < count { bytes.append(contentsOf: [UInt8](repeating: 0, count: count - bytes.count)) }
  }

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

  /// Calls `body` with states that a power cut after `cut` events may leave, for every cut in `cuts`:
  /// nothing unsynced is there; all of it; all but the last; only the last; and `randomCount` times
  /// a random choice in random order, with writes torn at 512 or 4096 bytes.
  public func forEachCrashState(
    cuts: some Sequence<Int>, random: inout SeededRandom, randomCount: Int = 2,
    _ body: (CrashState) throws -> Void
  ) rethrows {
    let events = events
    for cut in cuts {
      let synced = events[..<cut].lastIndex { if case .flush = $0 { true } else { false } } ?? 0
      var durable = initial
      for event in events[..<synced] { Self.apply(event, to: &durable) }
      let pending = events[synced..<cut].filter { if case .flush = $0 { false } else { true } }

      func state(_ story: String, _ kept: [Event]) -> CrashState {
        var bytes = durable
        for event in kept { Self.apply(event, to: &bytes) }
        return CrashState(cut: cut, story: "\(story) of \(pending.count) unsynced writes", bytes: bytes)
      }
      try body(state("none", []))
      guard let last = pending.last else { continue }
      try body(state("all", pending))
      if pending.count > 1 {
        try body(state("all but the last", Array(pending.dropLast())))
        try body(state("only the last", [last]))
      }
      for round in 0..<randomCount {
        try body(state("choice \(round)", Self.chosen(from: pending, &random)))
      }
    }
  }

  /// A random part of the writes, in random order, some torn.
  private static func chosen(from pending: [Event], _ random: inout SeededRandom) -> [Event] {
    let unit = random.oneIn(2) ? 512 : 4096
    var kept: [Event] = []
    for event in pending {
      switch random.below(4) {
      case 0: break
      case 1: kept.append(torn(event, unit, &random))
      default: kept.append(event)
      }
    }
    // Writes of one place keep their order: the page cache holds the newer one only.
    return reordered(kept, &random)
  }

  private static func torn(_ event: Event, _ unit: Int, _ random: inout SeededRandom) -> Event {
    guard case .write(let offset, let bytes) = event else { return event }
    let first = (offset / unit + 1) * unit - offset
    guard first < bytes.count else { return event }
    let pieces = (bytes.count - first + unit - 1) / unit
    let kept = first + random.below(pieces) * unit
    if random.oneIn(2) { return .write(offset: offset, bytes: Array(bytes[..<kept])) }
    return .write(offset: offset + kept, bytes: Array(bytes[kept...]))
  }

  private static func reordered(_ events: [Event], _ random: inout SeededRandom) -> [Event] {
    var result = events
    guard result.count > 1 else { return result }
    for _ in 0..<result.count {
      let index = random.below(result.count - 1)
      if !overlap(result[index], result[index + 1]) { result.swapAt(index, index + 1) }
    }
    return result
  }

  private static func overlap(_ a: Event, _ b: Event) -> Bool {
    guard let a = place(a), let b = place(b) else { return true }
    return a.overlaps(b)
  }

  private static func place(_ event: Event) -> Range<Int>? {
    switch event {
    case .write(let offset, let bytes): offset..<offset + bytes.count
    case .zeros(let offset, let count): offset..<offset + count
    case .resize, .flush: nil
    }
  }
}
