/// A table, or the cached part of one, that is changed in memory first.
protocol OrderedTable: AnyObject {
  var isDirty: Bool { get }
  /// Writes all that changed to the store; not yet flushed.
  func writeBack() throws(EngineError)
}

/// Which tables must be on disk before which: the one mechanism that keeps a crash from costing data.
///
/// Tables stand in ranks. What a rank's entries point to - guest data, or tables of the ranks before it -
/// is on disk before the rank is written. What a crash leaves is then at worst room that is counted and
/// not used. Lives in its layer's lock.
final class WriteOrder {
  private var ranks: [any OrderedTable] = []
  private let stores: [any ByteStore]
  /// Whether entries of the first rank point to guest data. False where they only count what others point to.
  private let firstRankPoints: Bool

  /// `stores`: every file that holds tables or guest data of the layer.
  init(stores: [any ByteStore], firstRankPoints: Bool = false) {
    self.stores = stores
    self.firstRankPoints = firstRankPoints
  }

  /// Adds a table that may refer to all that was added before it.
  func append(_ table: any OrderedTable) { ranks.append(table) }

  /// Forgets all tables but this one.
  func replaceAll(with table: any OrderedTable) { ranks = [table] }

  var isDirty: Bool { ranks.contains { $0.isDirty } }

  /// Writes every dirty table in order and makes all of it durable.
  ///
  /// `firstRank`: the ranks before it may stay behind, since the image says that they may be wrong.
  func flush(from firstRank: Int = 0) throws(EngineError) {
    for (rank, table) in ranks.enumerated() where rank >= firstRank && table.isDirty {
      // A first rank that refers to nothing needs nothing to be on disk before it.
      if rank > 0 || firstRankPoints { try flushStores() }
      try table.writeBack()
    }
    try flushStores()
  }

  private func flushStores() throws(EngineError) {
    for store in stores where store.isWritable { try store.flush() }
  }
}
