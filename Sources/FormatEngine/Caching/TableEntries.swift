/// Entries of many tables of one size - the second level of a two-level map - read in slices and changed in
/// memory first. Lives in its layer's lock.
///
/// Entries are in the byte order of the format; they are given as the host's integers.
struct TableEntries {
  private let order: EntryTable<UInt64>.ByteOrder
  private let cache: TableCache

  /// `tableByteCount`: a power of two. `cacheByteCount`: memory at most. `writeOrder`: nil for tables that are
  /// only read.
  init(
    in store: any ByteStore, tableByteCount: UInt64, _ order: EntryTable<UInt64>.ByteOrder,
    cacheByteCount: UInt64, writeOrder: WriteOrder?
  ) {
    self.order = order
    cache = TableCache(
      store: store, order: writeOrder, sliceByteCount: Int(min(tableByteCount, 4096)),
      capacity: cacheByteCount)
    writeOrder?.append(cache)
  }

  /// Entry `index` of the table at `table`; the table must have it.
  func entry(at index: UInt64, inTableAt table: UInt64) throws(EngineError) -> UInt64 {
    let (sliceOffset, position) = place(of: index, in: table)
    // SAFETY: entries do not straddle slices, and a slice is a whole number of them.
    let raw = unsafe try cache.slice(at: sliceOffset).loadUnaligned(fromByteOffset: position, as: UInt64.self)
    return order == .bigEndian ? UInt64(bigEndian: raw) : UInt64(littleEndian: raw)
  }

  /// Changes entry `index` of the table at `table`; the table must have it.
  func setEntry(at index: UInt64, inTableAt table: UInt64, to value: UInt64) throws(EngineError) {
    let (sliceOffset, position) = place(of: index, in: table)
    let raw = order == .bigEndian ? value.bigEndian : value.littleEndian
    // SAFETY: as above.
    unsafe try cache.slice(at: sliceOffset).storeBytes(of: raw, toByteOffset: position, as: UInt64.self)
    cache.markDirty(at: sliceOffset)
  }

  private func place(of index: UInt64, in table: UInt64) -> (sliceOffset: UInt64, position: Int) {
    let byte = index * 8
    let sliceByteCount = UInt64(cache.sliceByteCount)
    return (table + byte.aligned(downTo: sliceByteCount), Int(byte & (sliceByteCount - 1)))
  }
}
