import Synchronization

/// What the engine can tell of its work while it does it.
public enum TraceEvent: String, CaseIterable, Sendable {
  case fileOpen = "file_open"
  case fileClose = "file_close"
  case storeRead = "store_read"
  case storeWrite = "store_write"
  case storeWriteZeros = "store_write_zeros"
  case storeCopy = "store_copy"
  case storeDiscard = "store_discard"
  case storeResize = "store_resize"
  case storeFlush = "store_flush"
  case formatProbe = "format_probe"
  case imageOpen = "image_open"
  case clusterAllocate = "cluster_allocate"
  case clusterLink = "cluster_link"
  case clusterAbandon = "cluster_abandon"
  case tableLoad = "table_load"
  case tableEvict = "table_evict"
  case tableWriteBack = "table_write_back"
  case convertSegment = "convert_segment"
  case fileLock = "file_lock"
  case fileUnlock = "file_unlock"

  fileprivate var bit: UInt64 {
    switch self {
    case .fileOpen: 1 << 0
    case .fileClose: 1 << 1
    case .storeRead: 1 << 2
    case .storeWrite: 1 << 3
    case .storeWriteZeros: 1 << 4
    case .storeDiscard: 1 << 5
    case .storeResize: 1 << 6
    case .storeFlush: 1 << 7
    case .formatProbe: 1 << 8
    case .imageOpen: 1 << 9
    case .clusterAllocate: 1 << 10
    case .clusterLink: 1 << 11
    case .clusterAbandon: 1 << 12
    case .tableLoad: 1 << 13
    case .tableEvict: 1 << 14
    case .tableWriteBack: 1 << 15
    case .convertSegment: 1 << 16
    case .fileLock: 1 << 17
    case .fileUnlock: 1 << 18
    case .storeCopy: 1 << 19
    }
  }
}

/// Where the events go. One for the process: every store, cache and worker has something to tell, and would have to
/// carry it along otherwise.
public enum Trace {
  public typealias Sink = @Sendable (_ event: TraceEvent, _ fields: String) -> Void

  /// All that an event costs which nobody wants is a look at this.
  private static let wanted = Atomic<UInt64>(0)
  private static let sink = Guarded<Sink?>(nil)

  /// Has these events told to `sink` from now on, by whatever thread they happen on. None: nobody is told any more.
  public static func start(_ events: Set<TraceEvent>, sink: @escaping Sink) {
    self.sink.withLock { $0 = sink }
    wanted.store(events.reduce(0) { $0 | $1.bit }, ordering: .releasing)
  }

  /// Tells of an event: names and values with spaces between them.
  @inline(__always)
  static func emit(_ event: TraceEvent, _ fields: @autoclosure () -> String) {
    if wanted.load(ordering: .relaxed) & event.bit != 0 { tell(event, fields()) }
  }

  @inline(never)
  private static func tell(_ event: TraceEvent, _ fields: String) {
    let sink = sink.withLock { $0 }
    sink?(event, fields)
  }
}
