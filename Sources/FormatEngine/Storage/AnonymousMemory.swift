import Glibc

/// Zeroed memory that the system hands out page by page as it is touched.
enum AnonymousMemory {
  /// `isPromised`: all of it will be touched, so that more than the system has is refused here. Nil where it is.
  static func map(byteCount: Int, isPromised: Bool = false) -> UnsafeMutableRawPointer? {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | (isPromised ? 0 : MAP_NORESERVE)
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0)
    return unsafe address == MAP_FAILED ? nil : address
  }

  /// The same, where the process may have `spare` more bytes of addresses besides: what can do with less leaves some for what
  /// cannot.
  static func map(byteCount: Int, sparing spare: Int) -> UnsafeMutableRawPointer? {
    guard let start = unsafe map(byteCount: byteCount) else { return nil }
    guard let rest = unsafe map(byteCount: spare) else {
      unsafe unmap(start, byteCount: byteCount)
      return nil
    }
    unsafe unmap(rest, byteCount: spare)
    return unsafe start
  }

  /// All of what was mapped, from its first byte on.
  static func unmap(_ address: UnsafeMutableRawPointer, byteCount: Int) {
    let result = unsafe munmap(address, byteCount)
    assert(result == 0, "not what was mapped")
  }
}
