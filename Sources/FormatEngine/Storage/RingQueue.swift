internal import CUring
import Glibc

/// io_uring: two rings that the program shares with the kernel, one for what is to be done and one for what is.
@safe final class RingQueue: KernelQueue {
  private let ring: UnsafeMutablePointer<io_uring>
  /// Room for what is done, a batch at a time.
  private let entries: UnsafeMutableBufferPointer<UnsafeMutablePointer<io_uring_cqe>?>

  /// `capacity`: things that are under way at a time. Throws where the kernel does not have it, or is told to refuse it.
  init(capacity: Int) throws(EngineError) {
    let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
    unsafe ring.initialize(to: io_uring())
    // One more for what is watched. The kernel makes it a power of two.
    let entryCount = CUnsignedInt(clamping: min(max(capacity, 1) + 1, 4096))
    // One thread alone uses the rings, and what is done is put into them when it asks: fewer interrupts. Kernels before
    // 6.1 do not know that.
    let flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
    if unsafe io_uring_queue_init(entryCount, ring, flags) < 0,
      unsafe io_uring_queue_init(entryCount, ring, 0) < 0
    {
      unsafe ring.deallocate()
      throw .unsupported("Unable to use io_uring: failed to init linux io_uring ring")
    }
    unsafe self.ring = ring
    unsafe entries = .allocate(capacity: 64)
    unsafe entries.initialize(repeating: nil)
  }

  deinit {
    unsafe io_uring_queue_exit(ring)
    unsafe ring.deallocate()
    unsafe entries.deallocate()
  }

  func read(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, tag: Int)
    throws(EngineError)
  {
    let entry = unsafe try entry()
    unsafe io_uring_prep_read(entry, descriptor, buffer.baseAddress, CUnsignedInt(buffer.count), offset)
    unsafe io_uring_sqe_set_data64(entry, UInt64(tag))
  }

  func write(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, at offset: UInt64, tag: Int)
    throws(EngineError)
  {
    let entry = unsafe try entry()
    unsafe io_uring_prep_write(entry, descriptor, bytes.baseAddress, CUnsignedInt(bytes.count), offset)
    unsafe io_uring_sqe_set_data64(entry, UInt64(tag))
  }

  func watch(_ descriptor: CInt, tag: Int) throws(EngineError) {
    let entry = unsafe try entry()
    unsafe io_uring_prep_poll_add(entry, descriptor, CUnsignedInt(POLLIN))
    unsafe io_uring_sqe_set_data64(entry, UInt64(tag))
  }

  private func entry() throws(EngineError) -> UnsafeMutablePointer<io_uring_sqe> {
    if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
    try submit()
    guard let entry = unsafe io_uring_get_sqe(ring) else { throw Self.failure(EBUSY) }
    return unsafe entry
  }

  func submit() throws(EngineError) { try enter { unsafe io_uring_submit(ring) } }

  func wait(_ body: (_ tag: Int, _ result: Int) -> Void) throws(EngineError) {
    try enter { unsafe io_uring_submit_and_wait(ring, 1) }
    while true {
      let count = unsafe io_uring_peek_batch_cqe(ring, entries.baseAddress, CUnsignedInt(entries.count))
      for index in 0..<Int(count) {
        guard let entry = unsafe entries[index] else { continue }
        unsafe body(Int(entry.pointee.user_data), Int(entry.pointee.res))
      }
      unsafe io_uring_cq_advance(ring, count)
      if unsafe Int(count) < entries.count { return }
    }
  }

  /// A signal, or a kernel that has too much to do for a moment, is no reason to give up.
  private func enter(_ call: () -> CInt) throws(EngineError) {
    while true {
      let result = call()
      if result >= 0 { return }
      guard result == -EINTR || result == -EAGAIN || result == -EBUSY else { throw Self.failure(-result) }
      if result != -EINTR { return }
    }
  }

  private static func failure(_ number: CInt) -> EngineError {
    .systemCall("Could not hand requests to io_uring", errno: number)
  }
}
