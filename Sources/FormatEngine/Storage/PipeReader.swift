/// Reads a pipe from front to back, with a look at what comes next.
final class PipeReader: @unchecked Sendable {
  // @unchecked: a disk that comes out of a pipe has one reader at a time.
  private let pipe: HostPipe
  /// Bytes that were read and not yet taken, from `start` on.
  private var ahead: [UInt8] = []
  private var start = 0
  /// Nothing comes behind `ahead` any more.
  private var hasEnded = false
  /// Called while nothing comes out of the pipe; what it throws ends the wait.
  var proceed: @Sendable () throws(EngineError) -> Void = {}
  /// Bytes that were taken.
  private(set) var position: UInt64 = 0

  var path: String { pipe.path }

  init(_ path: String) throws(EngineError) { pipe = try HostPipe(path, for: .reading) }

  /// Bytes up to the end, nil where that is further away than anybody looked.
  var remainingByteCount: UInt64? { hasEnded ? aheadCount : nil }

  /// Bytes that are here already.
  var aheadCount: UInt64 { UInt64(ahead.count - start) }

  /// The next `count` bytes, which are not taken; fewer where the pipe ends before.
  func peek(_ count: Int) throws(EngineError) -> [UInt8] {
    let missing = count - (ahead.count - start)
    if missing > 0 && !hasEnded {
      ahead.removeFirst(start)
      start = 0
      let buffer = AlignedBuffer(byteCount: missing)
      let got = unsafe try pipe.read(into: buffer.prefix(missing), waiting: proceed)
      hasEnded = got < missing
      unsafe ahead.append(contentsOf: buffer.prefix(got))
    }
    return Array(ahead[start...].prefix(count))
  }

  /// Fills `buffer`; less than that only at the end. Says how many bytes came.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(EngineError) -> Int {
    let taken = unsafe takeAhead(into: buffer)
    var done = taken
    if done < buffer.count && !hasEnded {
      done += unsafe try pipe.read(
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[done...]), waiting: proceed)
      hasEnded = done < buffer.count
    }
    position += UInt64(done - taken)
    return done
  }

  private func takeAhead(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let count = min(buffer.count, ahead.count - start)
    guard count > 0 else { return 0 }
    // SAFETY: `count` is at most what either side has.
    unsafe ahead.withUnsafeBytes { raw in
      unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: raw[start..<start + count]))
    }
    start += count
    position += UInt64(count)
    if start == ahead.count { (ahead, start) = ([], 0) }
    return count
  }

  /// Takes bytes that nobody wants, and says how many there were.
  func skip(_ count: UInt64) throws(EngineError) -> UInt64 {
    let buffer = AlignedBuffer(byteCount: Int(min(count, 256 * KiB)))
    var done: UInt64 = 0
    while done < count {
      let wanted = Int(min(count - done, UInt64(buffer.byteCount)))
      let got = unsafe try read(into: buffer.prefix(wanted))
      done += UInt64(got)
      if got < wanted { break }
    }
    return done
  }
}
