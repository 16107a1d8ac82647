/// What a benchmark does with a disk: like requests, a step apart, some of them at work at any time.
public struct BenchmarkOptions: Sendable {
  /// Whether the requests are reads, or writes of one byte over and over.
  public enum Kind: Sendable, Equatable {
    case read
    case write(pattern: UInt8)
  }

  /// When what was written is brought to the disk.
  public struct Flushing: Sendable, Equatable {
    /// A flush wherever the number of requests that are not begun yet is a multiple of it. At least 1.
    public var interval: Int
    /// Whether a flush has the disk for itself: no request is at work beside it.
    public var drains: Bool

    public init(interval: Int, drains: Bool) {
      self.interval = interval
      self.drains = drains
    }
  }

  public var kind = Kind.read
  public var requestCount = 75000
  /// Requests that are at work at a time. At least 1.
  public var depth = 64
  /// Guest bytes of a request.
  public var byteCount = 4096
  /// Guest offset of the first request.
  public var offset: UInt64 = 0
  /// Bytes from one request's offset to the next one's, at most 2^31 - 1; past the end of the disk it goes on
  /// from its start.
  public var step: UInt64 = 4096
  /// Nil: nothing is flushed.
  public var flushing: Flushing?
  public var transfer = TransferMethod.threads

  public init() {}
}

/// Who carries out requests while others are begun.
public enum TransferMethod: Sendable, Equatable {
  /// A thread for each request that is at work, which waits for it.
  case threads
  /// Linux's own queue for files that are opened past the page cache (io_submit).
  case native
  /// Rings that are shared with the kernel (io_uring).
  case ring
}
