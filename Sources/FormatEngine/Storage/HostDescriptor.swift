internal import CLinux
import Glibc

/// An open descriptor of the host: positional reads and writes of any length. Whoever opened it closes it.
struct HostDescriptor: Sendable {
  let number: CInt
  /// For messages.
  let path: String

  /// Fills `buffer` as far as the file goes; returns how many bytes that were.
  ///
  /// `unit`: what O_DIRECT wants lengths to be multiples of. A read that ends elsewhere has met the file's end.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, unit: Int = 1) throws(EngineError)
    -> Int
  {
    guard let start = buffer.baseAddress, offset <= maximumFileOffset - UInt64(buffer.count) else { return 0 }
    var done = 0
    while done < buffer.count {
      // SAFETY: `done` stays below the buffer's count.
      let count = retrying {
        unsafe pread(number, start + done, buffer.count - done, off_t(offset) + off_t(done))
      }
      if count < 0 { throw failure("Could not read from", at: offset + UInt64(done)) }
      done += count
      if count % unit != 0 || count == 0 { break }
    }
    return done
  }

  /// Writes all of `bytes`.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    guard let start = bytes.baseAddress else { return }
    guard offset <= maximumFileOffset - UInt64(bytes.count) else {
      throw .systemCall("Could not write to '\(path)'", errno: EFBIG, path: path)
    }
    var done = 0
    while done < bytes.count {
      // SAFETY: `done` stays below the buffer's count.
      let count = retrying {
        unsafe pwrite(number, start + done, bytes.count - done, off_t(offset) + off_t(done))
      }
      if count < 0 { throw failure("Could not write to", at: offset + UInt64(done)) }
      done += count
    }
  }

  func status() throws(EngineError) -> stat {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw failure("Could not stat") }
    return status
  }

  /// Of a regular file, or of the device that a special file stands for: most character devices have none.
  func byteCount() throws(EngineError) -> UInt64 {
    let status = try status()
    guard HostFiles.kind(ofMode: status.st_mode).isDevice else {
      return UInt64(max(0, status.st_size))
    }
    let end = lseek(number, 0, SEEK_END)
    guard end >= 0 else {
      throw .systemCall("Could not refresh total sector count", errno: errno, path: path)
    }
    return UInt64(end)
  }

  /// The system call that just failed.
  func failure(_ tried: String, at offset: UInt64? = nil) -> EngineError {
    var error = EngineError.systemCall("\(tried) '\(path)'", errno: errno, path: path)
    error.offset = offset
    return error
  }
}

/// The one EINTR loop.
func retrying<T: SignedInteger>(_ call: () -> T) -> T {
  while true {
    let result = call()
    if result != -1 || errno != EINTR { return result }
  }
}
