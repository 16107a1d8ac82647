import FormatEngine

/// Which bytes a file of the tree shows: a chain, or a piece of it.
struct DiskView: Sendable {
  enum Source: Sendable {
    /// The disk that the guest sees, the one that may be written.
    case live
    /// What one file of the live disk stores; nil: the disk from that file downwards.
    case layer(depth: Int, onlyStored: Bool)
    /// A snapshot of the file at `depth`, over what lies below that file.
    case snapshot(SnapshotRecord, depth: Int)
  }

  let session: ImageSession
  let source: Source
  /// The piece in bytes of the disk; nil: all of it.
  var window: Range<UInt64>?
  /// Bytes of the whole disk as the image's list has them.
  let listedByteCount: UInt64

  /// Whether the live disk's changes show here.
  var follows: Bool {
    switch source {
    case .live: true
    case .layer(let depth, _): depth == 0
    case .snapshot: false
    }
  }

  var isWritable: Bool { if case .live = source { session.access.isWritable } else { false } }
  /// Whether somebody else may be changing the bytes.
  var isShared: Bool { session.access.isShared }
  /// Another number whenever the bytes may be others.
  var changes: UInt64 { follows ? session.changes : 0 }

  var byteCount: UInt64 {
    if let window { return window.upperBound - window.lowerBound }
    return min(listedByteCount, maximumFileOffset)
  }

  /// The same disk's bytes of a range.
  func piece(_ range: Range<UInt64>) -> DiskView {
    var view = self
    view.window = range
    return view
  }

  /// The chain that has the bytes, out of the session's.
  func chain(of chain: ImageChain) throws(EngineError) -> ImageChain {
    switch source {
    case .live: chain
    case .layer(let depth, let onlyStored):
      onlyStored ? chain.delta(at: depth) : chain.lower(from: depth)
    case .snapshot(let record, let depth):
      if let keeper = chain.members[depth].layer as? any SnapshotKeeping {
        chain.replacing(layerAt: depth, with: try keeper.openSnapshot(record))
      } else {
        throw EngineError(.notFound, "The image has no snapshots any more")
      }
    }
  }

  /// Keeps a snapshot from being deleted for as long as the result lives.
  func hold() throws(EngineError) -> SnapshotHolds.Hold? {
    guard case .snapshot(let record, depth: 0) = source else { return nil }
    return try session.snapshotHolds.hold(record.key)
  }
}

extension SnapshotRecord {
  /// By what the tree knows it again. The name may be long; what is alike in all of this is one disk.
  var key: String { "\(id) \(dateSeconds).\(dateNanoseconds) \(place)" }
}
