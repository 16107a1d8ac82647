import Synchronization

/// How many files of one image are open at a time, where it has more than a process may open.
final class OpenFilePool: Sendable {
  /// Of 1024 descriptors that a process usually has, for a chain of several such images.
  static let maximumOpen = 64

  /// Images of more files than this have a pool. Files of a pool are not locked: a lock goes with its descriptor.
  ///
  /// A share of what the process may open, for chains of such images. 4096 extents of 2 GiB are a disk of 8 TiB.
  static var largestWithout: Int { min(max(DescriptorLimit.current / 4, maximumOpen), 4096) }

  /// A store has its pool, and not the other way round.
  private struct Entry {
    weak var store: PooledFileStore?
  }

  /// Those that are open, the one opened first in front. Before the lock of a store.
  private let open = Guarded<[Entry]>([])

  /// Opens the store's file, after another one was closed if need be.
  fileprivate func admit(_ store: PooledFileStore) throws(EngineError) -> FileStore {
    try open.withLock { (open) throws(EngineError) in
      open.removeAll { $0.store == nil }
      if open.count >= Self.maximumOpen,
        let index = open.firstIndex(where: { $0.store?.closeIfIdle() ?? true })
      {
        open.remove(at: index)
      }
      let (file, isNew) = try store.openNow()
      if isNew { open.append(Entry(store: store)) }
      return file
    }
  }
}

/// A file of the host that is opened when it is first used, and closed while others of its pool are used more.
/// Its size is known without opening it.
final class PooledFileStore: ByteStore {
  private struct State {
    var file: FileStore?
    /// Calls that are under way: the file stays open for them.
    var userCount = 0
    /// Which file it was when it was open, and how far that reached.
    var identity: HostFiles.Identity?
    var end: UInt64 = 0
  }

  let place: FilePlace
  var path: String { place.path }
  private let access: FileAccess
  private let cache: CacheMode
  private let pool: OpenFilePool
  /// After the pool's lock.
  private let state = Guarded(State())

  init(place: FilePlace, access: FileAccess, cache: CacheMode, pool: OpenFilePool) {
    self.place = place
    self.access = access
    self.cache = cache
    self.pool = pool
  }

  fileprivate func openNow() throws(EngineError) -> (FileStore, isNew: Bool) {
    try state.withLock { (state) throws(EngineError) in
      if let file = state.file {
        state.userCount += 1
        return (file, false)
      }
      let file = try FileStore.open(place, access: access, cache: cache)
      guard state.identity == nil || state.identity == file.identity else {
        throw .unreadable("'\(path)' is another file now", path: path)
      }
      state.identity = file.identity
      file.knownEnd.max(state.end, ordering: .acquiringAndReleasing)
      state.file = file
      state.userCount += 1
      return (file, true)
    }
  }

  /// Nobody is using the file and all of it is on disk: what was written is never left to a descriptor that is gone.
  fileprivate func closeIfIdle() -> Bool {
    state.withLock { state in
      guard let file = state.file, state.userCount == 0, (try? file.flush()) != nil else { return false }
      state.end = file.knownEnd.load(ordering: .acquiring)
      state.file = nil
      return true
    }
  }

  private func withFile<T>(_ body: (FileStore) throws(EngineError) -> T) throws(EngineError) -> T {
    let ready = state.withLock { state in
      if state.file != nil { state.userCount += 1 }
      return state.file
    }
    let file: FileStore
    if let ready { file = ready } else { file = try pool.admit(self) }
    defer { state.withLock { $0.userCount -= 1 } }
    return try body(file)
  }

  func byteCount() throws(EngineError) -> UInt64 {
    let count = try HostFiles.sizes(of: place).byteCount
    // Who asks goes by it, whenever the file is opened.
    state.withLock { if $0.identity == nil { $0.end = max($0.end, count) } }
    return count
  }
  func allocatedByteCount() throws(EngineError) -> UInt64 {
    try HostFiles.sizes(of: place).allocatedByteCount
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try withFile { (file) throws(EngineError) in unsafe try file.read(into: buffer, at: offset) }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    try withFile { (file) throws(EngineError) in unsafe try file.write(bytes, at: offset) }
  }

  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    try withFile { (file) throws(EngineError) in
      try file.writeZeros(at: offset, count: count, freeing: freeing)
    }
  }

  func forget(at offset: UInt64, count: UInt64) {
    try? withFile { (file) throws(EngineError) in file.forget(at: offset, count: count) }
  }

  func resize(to byteCount: UInt64) throws(EngineError) {
    try withFile { (file) throws(EngineError) in try file.resize(to: byteCount) }
  }

  /// A file that is closed is on disk already.
  func flush() throws(EngineError) {
    let file = state.withLock { $0.file }
    try file?.flush()
  }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    try withFile { (file) throws(EngineError) in try file.run(at: offset, limit: limit) }
  }

  /// Nil: the descriptor may be closed at any time.
  var spliceDescriptor: CInt? { nil }
  var isWritable: Bool { access == .readWrite }
}

extension ByteStore {
  /// What there is to see of it where it is a file of the host, without opening it.
  var hostStatus: HostFiles.Status? {
    if let file = hostFile { return try? HostFiles.Status(file.descriptor.status()) }
    return (self as? PooledFileStore)?.place.status().map { HostFiles.Status($0) }
  }
}

extension ReferenceOpener {
  /// The file `name` that the image at `path` names, for a pool: it is opened when it is first read or written.
  func pooled(
    _ name: String, for role: ReferencePolicy.Role, namedBy path: String, access: FileAccess,
    in pool: OpenFilePool
  ) throws(EngineError) -> PooledFileStore {
    let target = try policy.resolve(name, for: role, namedBy: path)
    return PooledFileStore(place: target, access: access, cache: cache, pool: pool)
  }
}
