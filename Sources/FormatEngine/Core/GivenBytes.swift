/// Bytes to be written: in memory, or read when they are wanted. The host may know a shorter way than through memory.
@safe struct GivenBytes {
  /// Where the same bytes lie in a file of the host that nobody changes, and how that may copy them.
  struct Original {
    let place: HostPlace
    let method: HostCopy
    /// Is told what came of it.
    let results: HostCopyResults
  }

  @safe private enum Memory {
    case here(UnsafeRawBufferPointer)
    /// The bytes of a range, good until the next call; `start` is where these begin.
    case later((Range<Int>) throws(EngineError) -> UnsafeRawBufferPointer, start: Int)
  }

  let count: Int
  private let memory: Memory
  private let original: Original?

  private init(_ memory: Memory, count: Int, _ original: Original?) {
    self.memory = memory
    self.count = count
    self.original = original
  }

  init(_ bytes: UnsafeRawBufferPointer, _ original: Original? = nil) {
    unsafe self.init(.here(bytes), count: bytes.count, original)
  }

  /// `read` gives those that the host does not copy.
  init(
    count: Int, _ original: Original,
    read: @escaping (Range<Int>) throws(EngineError) -> UnsafeRawBufferPointer
  ) {
    unsafe self.init(.later(read, start: 0), count: count, original)
  }

  /// A part of them; `range` must lie inside.
  func piece(_ range: Range<Int>) -> GivenBytes {
    let part = original.map {
      Original(place: $0.place.advanced(by: range.lowerBound), method: $0.method, results: $0.results)
    }
    return switch memory {
    case .here(let bytes): unsafe GivenBytes(.here(.init(rebasing: bytes[range])), count: range.count, part)
    case .later(let read, let start):
      unsafe GivenBytes(.later(read, start: start + range.lowerBound), count: range.count, part)
    }
  }

  /// The bytes of a range, which must lie inside.
  func bytes(_ range: Range<Int>) throws(EngineError) -> UnsafeRawBufferPointer {
    // SAFETY: callers ask for ranges inside of the bytes.
    switch memory {
    case .here(let bytes): unsafe UnsafeRawBufferPointer(rebasing: bytes[range])
    case .later(let read, let start): unsafe try read(start + range.lowerBound..<start + range.upperBound)
    }
  }

  func write(to store: any ByteStore, at offset: UInt64) throws(EngineError) {
    guard let original, let file = store as? FileStore else {
      return unsafe try store.write(bytes(0..<count), at: offset)
    }
    let copied = file.copy(from: original.place, to: offset, count: UInt64(count), by: original.method)
    original.results.note(original.place.file, copied)
    let done = copied.map { Int($0.lowerBound - offset)..<Int($0.upperBound - offset) } ?? 0..<0
    for rest in [0..<done.lowerBound, done.upperBound..<count] where !rest.isEmpty {
      unsafe try store.write(bytes(rest), at: offset + UInt64(rest.lowerBound))
    }
  }
}
