import Glibc

/// Zeroed memory that the system hands out page by page as it is touched.
enum AnonymousMemory {
  static func map(byteCount: Int) -> UnsafeMutableRawPointer? {
    let address = unsafe mmap(
      nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return unsafe address == MAP_FAILED ? nil : address
  }

  static func unmap(_ address: UnsafeMutableRawPointer, byteCount: Int) { unsafe munmap(address, byteCount) }
}
