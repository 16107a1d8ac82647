import FormatEngine
import Synchronization

/// A disk as a file of the tree, opened when somebody first wants to read it, and let go of when nobody
/// reads it any more: an image may have thousands of snapshots.
final class DiskFile: Sendable {
  private struct State {
    weak var opened: OpenDisk?
    var allocatedByteCount: UInt64?
  }

  /// Bytes of the disk as the image's list has them.
  let listedByteCount: UInt64
  private let open: @Sendable () throws(EngineError) -> ImageChain
  /// Held while the disk is opened or walked, so that it happens once. Before every lock of the engine.
  private let state = Mutex(State())

  init(listedByteCount: UInt64, open: @escaping @Sendable () throws(EngineError) -> ImageChain) {
    self.listedByteCount = listedByteCount
    self.open = open
  }

  /// The opened disk, the same for all who have it open at one time.
  func opened() throws(EngineError) -> OpenDisk {
    try state.withLock { (state) throws(EngineError) in try Self.opened(&state, open) }
  }

  private static func opened(
    _ state: inout State, _ open: () throws(EngineError) -> ImageChain
  ) throws(EngineError) -> OpenDisk {
    if let disk = state.opened { return disk }
    let disk = OpenDisk(try open())
    state.opened = disk
    return disk
  }

  /// Bytes that are not known to be zeros, if they were counted before.
  var knownAllocatedByteCount: UInt64? { state.withLock { $0.allocatedByteCount } }

  /// Bytes that are not known to be zeros, counted once.
  func allocatedByteCount() throws(EngineError) -> UInt64 {
    try state.withLock { (state) throws(EngineError) in
      if let known = state.allocatedByteCount { return known }
      let count = try Self.opened(&state, open).allocatedByteCount()
      state.allocatedByteCount = count
      return count
    }
  }
}

/// A disk that somebody reads.
final class OpenDisk: Sendable {
  /// How a request is answered.
  enum Source {
    /// The bytes lie as they are in a file of the host.
    case file(descriptor: CInt, offset: UInt64)
    /// One extent holds them all.
    case extent(LocatedExtent)
    case severalExtents
  }

  /// From this size on it is cheaper to hand pages of the host's file to the kernel than to copy them
  /// (by 15 % at 64 KiB; at 32 KiB there is no difference).
  static let spliceByteCount = 64 * 1024
  /// More extents than any image has that is not made of crumbs; the rest of the disk is then taken to
  /// be like what was counted, so that no `stat` takes minutes.
  static let maximumCountedExtents = 4_000_000

  let chain: ImageChain

  init(_ chain: ImageChain) { self.chain = chain }

  var byteCount: UInt64 { min(chain.virtualSize, maximumFileOffset) }

  /// Where `count` bytes at `offset` are; the request must lie inside the disk and not be empty.
  func source(at offset: UInt64, count: Int) throws(EngineError) -> Source {
    let found = try chain.locate(at: offset, limit: UInt64(count))
    guard found.extent.length == UInt64(count) else { return .severalExtents }
    guard count >= Self.spliceByteCount, found.extent.source == .stored, !found.extent.isEncrypted,
      let host = found.extent.hostOffset
    else { return .extent(found) }
    let store = chain.members[found.depth].layer.store(found.extent.store)
    // An image may end within its last cluster; what lies past its end are zeros that no file has.
    guard let descriptor = store.spliceDescriptor, host <= maximumFileOffset - UInt64(count),
      try host + UInt64(count) <= store.byteCount()
    else { return .extent(found) }
    return .file(descriptor: descriptor, offset: host)
  }

  /// Fills all of `buffer` with the bytes that `source` was found for.
  func read(
    _ source: Source, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    if case .extent(let found) = source {
      unsafe try chain.read(found, at: offset, into: buffer)
    } else {
      unsafe try chain.read(into: buffer, at: offset)
    }
  }

  /// The first offset from `offset` on that holds data, or that holds none; nil past the last one.
  func seek(from offset: UInt64, toData: Bool) -> UInt64? {
    guard offset < byteCount else { return nil }
    var position = offset
    while position < byteCount {
      let run = run(at: position)
      if run.isData == toData { return position }
      position += run.length
    }
    // Every file ends with a hole of no length.
    return toData ? nil : byteCount
  }

  /// Bytes that are not known to be zeros.
  func allocatedByteCount() -> UInt64 {
    var position: UInt64 = 0
    var allocated: UInt64 = 0
    for _ in 0..<Self.maximumCountedExtents {
      guard position < byteCount else { return allocated }
      let run = run(at: position)
      if run.isData { allocated += run.length }
      position += run.length
    }
    guard position < byteCount else { return allocated }
    return UInt64(Double(allocated) / Double(position) * Double(byteCount))
  }

  /// The run of data or of zeros that starts at `position`, which lies inside the disk. Where the
  /// image's tables are damaged there is data: whoever reads it gets the error.
  private func run(at position: UInt64) -> StoredRun {
    let rest = byteCount - position
    do throws(EngineError) {
      let found = try chain.extent(at: position, limit: rest)
      return StoredRun(isData: !found.readsAsZeros, length: found.extent.length)
    } catch {
      let unit = max(chain.top.clusterSize, 4096)
      return StoredRun(isData: true, length: min(rest, unit - position % unit))
    }
  }
}
