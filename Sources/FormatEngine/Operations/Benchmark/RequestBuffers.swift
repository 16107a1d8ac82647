import Glibc

/// Memory for the requests that are at work at a time: a place for each, aligned so that O_DIRECT takes it.
@safe final class RequestBuffers: @unchecked Sendable {
  // @unchecked: a place is used by one request at a time.
  let byteCount: Int
  private let stride: Int
  private let memory: UnsafeMutableRawBufferPointer

  /// Throws where there is not that much memory. Every byte is `pattern`.
  init(count: Int, byteCount: Int, pattern: UInt8) throws(EngineError) {
    self.byteCount = byteCount
    stride = (byteCount + 4095) & ~4095
    let (total, overflow) = stride.multipliedReportingOverflow(by: count)
    guard !overflow, let start = unsafe AnonymousMemory.map(byteCount: max(total, 4096), isPromised: true)
    else {
      throw .systemCall(
        "Could not allocate memory for \(count) requests of \(byteCount) bytes", errno: ENOMEM)
    }
    unsafe memory = UnsafeMutableRawBufferPointer(start: start, count: max(total, 4096))
    // Touched here, so that no request pays for pages that are handed out. What is mapped is zeros already, but
    // shares one page until it is written.
    unsafe memory.initializeMemory(as: UInt8.self, repeating: pattern)
  }

  deinit {
    if let start = unsafe memory.baseAddress { unsafe AnonymousMemory.unmap(start, byteCount: memory.count) }
  }

  /// The place of the request in this slot, which is less than `count`.
  func place(_ slot: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(rebasing: memory[slot * stride..<slot * stride + byteCount])
  }
}
