import Glibc

/// Rules by which a `DebugStore` fails (QEMU's driver blkdebug, docs/devel/testing/blkdebug.rst).
struct DebugRules: Sendable {
  /// What is asked of a store.
  enum Request: String, Sendable {
    case read
    case write
    case writeZeros = "write-zeroes"
    case discard
    case flush
    case status = "block-status"
  }

  struct Failure: Sendable, Equatable {
    /// `none` is at any time; `read_aio` and `write_aio` are when a guest's bytes are read and written. The
    /// other events are steps inside of QEMU's own formats: they do not happen here.
    var event = "none"
    /// 0: in any state.
    var state = 0
    /// Nil: every request but for those of the status.
    var request: Request?
    var errno: CInt = EIO
    /// Only requests that touch it fail.
    var sector: UInt64?
    var happensOnce = false
  }

  struct Transition: Sendable, Equatable {
    var event = "none"
    /// 0: from any state.
    var state = 0
    var newState = 1
  }

  var failures: [Failure] = []
  var transitions: [Transition] = []
}

/// A store whose requests fail by rules: for tests of what is above it.
final class DebugStore: ByteStore {
  private struct State {
    var rules: DebugRules
    var number = 1
  }

  let below: any ByteStore
  private let state: Guarded<State>

  init(_ below: any ByteStore, _ rules: DebugRules) {
    self.below = below
    state = Guarded(State(rules: rules))
  }

  /// The same bytes as the guest's: reading and writing them are events.
  var guestBytes: any ByteStore { DebuggedGuestBytes(self) }

  /// Fails where a rule says so for a request of `count` bytes, and for an event if it is one.
  fileprivate func check(_ request: DebugRules.Request, _ offset: UInt64, _ count: UInt64, event: String?)
    throws(EngineError)
  {
    let errno = state.withLock { state -> CInt? in
      if let event {
        let number = state.number
        for rule in state.rules.transitions
        where rule.event == event && (rule.state == 0 || rule.state == number) {
          state.number = rule.newState
        }
      }
      let index = state.rules.failures.firstIndex { rule in
        guard rule.event == "none" || rule.event == event else { return false }
        guard rule.state == 0 || rule.state == state.number else { return false }
        guard rule.request.map({ $0 == request }) ?? (request != .status) else { return false }
        guard let sector = rule.sector else { return true }
        return sector >= offset / 512 && sector < (offset + count).dividedRoundingUp(by: 512)
      }
      guard let index else { return nil }
      let rule = state.rules.failures[index]
      if rule.happensOnce { state.rules.failures.remove(at: index) }
      return rule.errno
    }
    guard let errno else { return }
    var failure = EngineError.systemCall("", errno: errno)
    failure.message = EngineError.systemErrorText(errno)
    failure.offset = offset
    throw failure
  }

  var spliceDescriptor: CInt? { nil }
  var isWritable: Bool { below.isWritable }
  func byteCount() throws(EngineError) -> UInt64 { try below.byteCount() }
  func allocatedByteCount() throws(EngineError) -> UInt64 { try below.allocatedByteCount() }
  func resize(to byteCount: UInt64) throws(EngineError) { try below.resize(to: byteCount) }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try check(.read, offset, UInt64(buffer.count), event: nil)
    unsafe try below.read(into: buffer, at: offset)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try check(.write, offset, UInt64(bytes.count), event: nil)
    unsafe try below.write(bytes, at: offset)
  }

  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try check(.writeZeros, offset, count, event: nil)
    try below.writeZeros(at: offset, count: count, freeing: freeing)
  }

  func forget(at offset: UInt64, count: UInt64) {
    guard (try? check(.discard, offset, count, event: nil)) != nil else { return }
    below.forget(at: offset, count: count)
  }

  func flush() throws(EngineError) {
    try check(.flush, 0, 0, event: "flush_to_disk")
    try below.flush()
  }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    try check(.status, offset, limit, event: nil)
    return try below.run(at: offset, limit: limit)
  }
}

/// A `DebugStore` as its guest's bytes are read and written.
private final class DebuggedGuestBytes: ByteStore {
  private let store: DebugStore

  init(_ store: DebugStore) { self.store = store }

  var spliceDescriptor: CInt? { nil }
  var isWritable: Bool { store.isWritable }
  func byteCount() throws(EngineError) -> UInt64 { try store.byteCount() }
  func allocatedByteCount() throws(EngineError) -> UInt64 { try store.allocatedByteCount() }
  func resize(to byteCount: UInt64) throws(EngineError) { try store.resize(to: byteCount) }
  func flush() throws(EngineError) { try store.flush() }
  func forget(at offset: UInt64, count: UInt64) { store.forget(at: offset, count: count) }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try store.check(.read, offset, UInt64(buffer.count), event: "read_aio")
    unsafe try store.below.read(into: buffer, at: offset)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try store.check(.write, offset, UInt64(bytes.count), event: "write_aio")
    unsafe try store.below.write(bytes, at: offset)
  }

  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try store.writeZeros(at: offset, count: count, freeing: freeing)
  }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    try store.run(at: offset, limit: limit)
  }
}
