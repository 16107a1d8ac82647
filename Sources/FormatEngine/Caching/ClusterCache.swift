/// The last few clusters that were unpacked, so that small reads do not unpack the same cluster again
/// and again. Last in the lock order.
final class ClusterCache: Sendable {
  private struct Entry {
    var depth: Int
    var guestOffset: UInt64
    var byteCount: Int
    var content: AlignedBuffer
    var lastUse: UInt64
  }

  private struct State {
    var entries: [Entry] = []
    var clock: UInt64 = 0
    /// Counts changes of the disk: what was unpacked before a change is not kept after it.
    var generation: UInt64 = 0

    mutating func makeRoom(for byteCount: Int, _ maximum: Int) {
      while entries.reduce(byteCount, { $0 + $1.byteCount }) > maximum,
        let oldest = entries.indices.min(by: { entries[$0].lastUse < entries[$1].lastUse })
      {
        entries.swapAt(oldest, entries.count - 1)
        entries.removeLast()
      }
    }
  }

  /// Four of the largest clusters of qcow2, or 128 of the usual 64 KiB. A single one may be larger: cloop and DMG have up
  /// to 64 MiB.
  private static let maximumByteCount = 8 * Int(MiB)
  private let state = Guarded(State())
  /// Held while somebody looks for, unpacks or reads a cluster of more than `maximumByteCount`. After `RangeLock`, before
  /// the layers' own locks.
  private let large = Guarded(())

  var generation: UInt64 { state.withLock { $0.generation } }

  /// The unpacked cluster of the layer at `depth` that starts at `guestOffset`. Nobody changes it.
  func find(depth: Int, guestOffset: UInt64) -> AlignedBuffer? {
    state.withLock { state in
      guard
        let index = state.entries.firstIndex(where: { $0.guestOffset == guestOffset && $0.depth == depth })
      else { return nil }
      state.clock += 1
      state.entries[index].lastUse = state.clock
      return state.entries[index].content
    }
  }

  /// Runs `body`, which finds or inserts a cluster of so many bytes and copies out of it. Of very large ones one is in
  /// memory at a time, however many threads want to read some.
  func using<T>(clusterOf byteCount: Int, _ body: () throws(EngineError) -> T) throws(EngineError) -> T {
    guard byteCount > Self.maximumByteCount else { return try body() }
    return try large.withLock { _ throws(EngineError) in try body() }
  }

  /// Lets go of clusters until there is room for so many bytes.
  func makeRoom(for byteCount: Int) { state.withLock { $0.makeRoom(for: byteCount, Self.maximumByteCount) } }

  /// Keeps a cluster, unless the disk has changed since `generation` was read.
  func insert(_ content: AlignedBuffer, depth: Int, guestOffset: UInt64, byteCount: Int, generation: UInt64) {
    state.withLock { state in
      // Only the top layer changes.
      guard depth > 0 || state.generation == generation else { return }
      state.clock += 1
      state.makeRoom(for: byteCount, Self.maximumByteCount)
      state.entries.append(
        Entry(
          depth: depth, guestOffset: guestOffset, byteCount: byteCount, content: content,
          lastUse: state.clock))
    }
  }

  /// Forgets what overlaps a range of the top layer that is about to change.
  func invalidate(_ range: Range<UInt64>) {
    state.withLock { state in
      state.generation += 1
      state.entries.removeAll {
        $0.depth == 0 && $0.guestOffset < range.upperBound
          && range.lowerBound < $0.guestOffset + UInt64($0.byteCount)
      }
    }
  }
}
