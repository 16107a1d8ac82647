import FormatEngine

/// The partitions of a disk and what lies in them, found out when somebody asks, and again after the disk was written.
final class DiskPartitions: Sendable {
  struct Found: Sendable {
    /// Nil where the disk has none.
    var table: PartitionTable?
    /// What lies in each partition of the table, in its order; in those that were not looked into, nothing.
    var contents: [FileSystemIdentity?]
  }

  /// As many as Linux shows of a disk. A table may have thousands, and each look may unpack clusters.
  private static let maximumContentCount = 256

  let view: DiskView
  /// Held while the disk is read, so that it happens once. After a folder's lock, before every lock of the session.
  private let found = Guarded<(found: Found, changes: UInt64)?>(nil)

  init(_ view: DiskView) { self.view = view }

  func current() throws(EngineError) -> Found {
    try found.withLock { (found) throws(EngineError) in
      let changes = view.changes
      if let found, found.changes == changes { return found.found }
      let new = try read()
      found = (new, changes)
      return new
    }
  }

  private func read() throws(EngineError) -> Found {
    let hold = try view.hold()
    defer { withExtendedLifetime(hold) {} }
    return try view.session.withChain { (chain) throws(EngineError) in
      // A file of the host has no more bytes.
      let disk = DiskWindow(try view.chain(of: chain)).part(at: 0, byteCount: maximumFileOffset)
      let table = try PartitionTable.read(disk)
      let contents = (table?.partitions ?? []).enumerated().map { index, partition in
        index < Self.maximumContentCount ? FileSystemIdentity.find(in: partition.window(on: disk)) : nil
      }
      return Found(table: table, contents: contents)
    }
  }
}
