import Glibc

/// A pipe of this process: one end has a name that what is tested can open, at the other a thread writes or reads.
public final class TestPipe: @unchecked Sendable {
  // @unchecked: `collected` is read after its thread has ended.
  private let (reading, writing): (CInt, CInt)
  private var collected: [UInt8] = []

  public init() throws(TestFailure) {
    var ends: [CInt] = [0, 0]
    guard unsafe pipe(&ends) == 0 else { throw TestFailure("No pipe: errno \(errno)") }
    // Who reads may go away in the middle: the thread that feeds gets an error then, and no signal.
    signal(SIGPIPE, SIG_IGN)
    (reading, writing) = (ends[0], ends[1])
  }

  /// Calls `body` with the name of a pipe that `bytes` come out of, at most `piece` at a time.
  public static func feeding<T>(
    _ bytes: [UInt8], piece: Int = 1 << 20, _ body: (String) throws -> T
  ) throws -> T {
    let pipe = try TestPipe()
    let done = TestThread {
      var start = 0
      while start < bytes.count {
        let end = min(start + piece, bytes.count)
        let count = unsafe bytes[start..<end].withUnsafeBytes {
          unsafe write(pipe.writing, $0.baseAddress, $0.count)
        }
        guard count > 0 else { break }
        start += count
      }
      close(pipe.writing)
    }
    let result = Result { try body("/dev/fd/\(pipe.reading)") }
    close(pipe.reading)
    done.join()
    return try result.get()
  }

  /// Calls `body` with the name of a pipe, and gives what was written to it.
  public static func collecting(_ body: (String) throws -> Void) throws -> [UInt8] {
    let pipe = try TestPipe()
    let done = TestThread {
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      while true {
        let count = unsafe buffer.withUnsafeMutableBytes {
          unsafe read(pipe.reading, $0.baseAddress, $0.count)
        }
        guard count > 0 else { break }
        pipe.collected += buffer[..<count]
      }
    }
    let result = Result { try body("/dev/fd/\(pipe.writing)") }
    close(pipe.writing)
    done.join()
    close(pipe.reading)
    try result.get()
    return pipe.collected
  }
}
