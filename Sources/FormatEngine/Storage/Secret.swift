import Glibc

/// Bytes that nobody else is to see: they are wiped when the last user lets go of them.
@safe public final class Secret: @unchecked Sendable {
  // @unchecked: nothing changes after init.
  private let memory: UnsafeMutableRawBufferPointer

  /// Copies `bytes`. The caller wipes its own.
  public init(_ bytes: UnsafeRawBufferPointer) {
    unsafe memory = .allocate(byteCount: max(bytes.count, 1), alignment: 16)
    unsafe memory.copyMemory(from: bytes)
    count = bytes.count
  }

  /// `count` bytes that `fill` writes; they are zeros before.
  init<E: Error>(count: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(E) -> Void) throws(E) {
    unsafe memory = .allocate(byteCount: max(count, 1), alignment: 16)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
    self.count = count
    // SAFETY: the memory is at least `count` bytes long.
    try unsafe fill(UnsafeMutableRawBufferPointer(rebasing: memory[0..<count]))
  }

  deinit {
    if let base = unsafe memory.baseAddress { unsafe explicit_bzero(base, memory.count) }
    unsafe memory.deallocate()
  }

  public let count: Int

  /// Whether the bytes are UTF-8.
  var isText: Bool { unsafe withBytes { unsafe String(validating: $0, as: UTF8.self) != nil } }

  /// Lends the bytes; they must not be kept.
  public func withBytes<T, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> T) throws(E) -> T {
    try unsafe body(UnsafeRawBufferPointer(rebasing: memory[0..<count]))
  }
}
