import Glibc

/// Whole texts through descriptors, for all that is printed.
package enum Descriptor {
  /// False where not all could be written.
  package static func write(_ bytes: [UInt8], to descriptor: CInt) -> Bool {
    unsafe bytes.withUnsafeBytes { raw in
      var done = 0
      while done < raw.count {
        // SAFETY: `done` stays below the buffer's count.
        let rest = unsafe UnsafeRawBufferPointer(rebasing: raw[done...])
        let count = unsafe Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return false }
        done += count
      }
      return true
    }
  }
}
