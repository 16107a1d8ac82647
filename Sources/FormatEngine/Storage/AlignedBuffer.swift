/// Raw memory for bytes on their way, aligned to 4096 so that O_DIRECT takes it. Its owner alone uses it.
@safe public final class AlignedBuffer: @unchecked Sendable {
  // @unchecked: plain memory; whoever holds the buffer hands it to one thread at a time.
  public let bytes: UnsafeMutableRawBufferPointer

  public init(byteCount: Int) {
    unsafe bytes = .allocate(byteCount: max(byteCount, 1), alignment: 4096)
  }

  deinit { unsafe bytes.deallocate() }

  public var byteCount: Int { unsafe bytes.count }

  /// The first `count` bytes.
  public func prefix(_ count: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[0..<count])
  }
}

/// Buffers of one size, kept for the next user instead of being given back.
public final class BufferPool: Sendable {
  public let bufferByteCount: Int
  private let maximumKept: Int
  private let free = Guarded<[AlignedBuffer]>([])

  public init(bufferByteCount: Int, maximumKept: Int = 16) {
    self.bufferByteCount = bufferByteCount
    self.maximumKept = maximumKept
    free.withLock { $0.reserveCapacity(maximumKept) }
  }

  public func take() -> AlignedBuffer {
    free.withLock { $0.popLast() } ?? AlignedBuffer(byteCount: bufferByteCount)
  }

  public func give(_ buffer: AlignedBuffer) {
    free.withLock { if $0.count < maximumKept { $0.append(buffer) } }
  }
}
