internal import CAio
import Glibc

/// Linux's own queue for files that are opened past the page cache: of others it carries out requests while they are
/// handed in.
@safe final class NativeQueue: KernelQueue {
  private let context: io_context_t
  private let capacity: Int
  private let requests: UnsafeMutablePointer<iocb>
  private let events: UnsafeMutablePointer<io_event>
  /// Noted and not handed in yet.
  private var pending: [UnsafeMutablePointer<iocb>?] = unsafe []
  /// Requests that are not under way.
  private var free: [Int]
  /// Refused by the kernel when they were handed in: tag and result.
  private var refused: [(Int, Int)] = []

  /// `capacity`: requests that are under way at a time.
  init(capacity: Int) throws(EngineError) {
    // One more for what is watched.
    self.capacity = max(capacity, 1) + 1
    var context: io_context_t? = nil
    let result = unsafe io_setup(CInt(clamping: self.capacity), &context)
    guard result == 0, let context = unsafe context else {
      throw .systemCall(
        "Unable to use native AIO: failed to create linux AIO context", errno: result < 0 ? -result : EAGAIN)
    }
    unsafe self.context = context
    unsafe requests = .allocate(capacity: self.capacity)
    unsafe requests.initialize(repeating: iocb(), count: self.capacity)
    unsafe events = .allocate(capacity: self.capacity)
    unsafe events.initialize(repeating: io_event(), count: self.capacity)
    free = Array(0..<self.capacity)
    unsafe pending.reserveCapacity(self.capacity)
  }

  deinit {
    unsafe io_destroy(context)
    unsafe requests.deallocate()
    unsafe events.deallocate()
  }

  func read(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, tag: Int)
    throws(EngineError)
  {
    unsafe try note(tag) { request in
      unsafe io_prep_pread(request, descriptor, buffer.baseAddress, buffer.count, Int64(clamping: offset))
    }
  }

  func write(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, at offset: UInt64, tag: Int)
    throws(EngineError)
  {
    unsafe try note(tag) { request in
      unsafe io_prep_pwrite(
        request, descriptor, UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count,
        Int64(clamping: offset))
    }
  }

  func watch(_ descriptor: CInt, tag: Int) throws(EngineError) {
    unsafe try note(tag) { request in unsafe io_prep_poll(request, descriptor, POLLIN) }
  }

  private func note(_ tag: Int, _ prepare: (UnsafeMutablePointer<iocb>) -> Void) throws(EngineError) {
    guard let number = free.popLast() else { throw Self.failure(EAGAIN) }
    let request = unsafe requests + number
    unsafe prepare(request)
    // Only handed back, never looked through: a number and no address.
    unsafe request.pointee.data = UnsafeMutableRawPointer(bitPattern: tag + 1)
    unsafe pending.append(request)
  }

  func submit() throws(EngineError) {
    var done = 0
    defer { unsafe pending.removeFirst(done) }
    while done < (unsafe pending.count) {
      let rest = unsafe pending.count - done
      let result = unsafe pending.withUnsafeMutableBufferPointer { pending in
        unsafe io_submit(context, rest, pending.baseAddress.map { unsafe $0 + done })
      }
      if result > 0 {
        done += Int(result)
      } else if result == -EAGAIN || result == 0 {
        // The kernel has no room: what is under way must be done first.
        return
      } else if result != -EINTR {
        // It is the first one that it does not take.
        if let request = unsafe pending[done] { unsafe refuse(request, Int(result)) }
        done += 1
      }
    }
  }

  private func refuse(_ request: UnsafeMutablePointer<iocb>, _ result: Int) {
    unsafe refused.append((take(request), result))
  }

  /// The tag of a request that is not under way any more.
  private func take(_ request: UnsafeMutablePointer<iocb>) -> Int {
    unsafe free.append(request - requests)
    return unsafe Int(bitPattern: request.pointee.data) - 1
  }

  func wait(_ body: (_ tag: Int, _ result: Int) -> Void) throws(EngineError) {
    try submit()
    let refused = refused
    self.refused = []
    for (tag, result) in refused { body(tag, result) }
    // Something may be done, but nothing must be waited for.
    let underWay = unsafe capacity - free.count - pending.count
    guard underWay > 0 else { return }
    while true {
      let count = unsafe io_getevents(context, refused.isEmpty ? 1 : 0, capacity, events, nil)
      if count == -EINTR { continue }
      guard count >= 0 else { throw Self.failure(-count) }
      for index in 0..<Int(count) {
        let event = unsafe events[index]
        if let request = unsafe event.obj { unsafe body(take(request), Int(bitPattern: UInt(event.res))) }
      }
      return
    }
  }

  private static func failure(_ number: CInt) -> EngineError {
    .systemCall("Could not hand requests to native AIO", errno: number)
  }
}
