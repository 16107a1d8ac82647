/// A flat table of integers of 4 or 8 bytes (a block map, a BAT) that is read in slices and changed in memory
/// first. Lives in its layer's lock.
///
/// Entries are in the byte order of the format; both are given as the host's integers.
struct EntryTable<Entry: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
  enum ByteOrder { case littleEndian, bigEndian }

  /// Entries that the table has room for.
  let count: UInt64
  /// Where it begins in the store, in bytes.
  let hostOffset: UInt64
  private let order: ByteOrder
  private let cache: TableCache
  private static var entrySize: UInt64 { UInt64(MemoryLayout<Entry>.size) }
  private static var sliceByteCount: UInt64 { 4096 }

  /// The whole table must end before 2^63; what of it lies past the end of the store reads as zeros.
  ///
  /// `cacheByteCount`: memory at most, in slices of 4 KiB. `writeOrder`: nil for a table that is only read.
  init(
    in store: any ByteStore, at hostOffset: UInt64, count: UInt64, _ order: ByteOrder,
    cacheByteCount: UInt64 = MiB, writeOrder: WriteOrder?
  ) {
    self.count = count
    self.hostOffset = hostOffset
    self.order = order
    let byteCount = count * Self.entrySize
    cache = TableCache(
      store: store, order: writeOrder, sliceByteCount: Int(Self.sliceByteCount),
      capacity: min(byteCount, cacheByteCount), end: hostOffset + byteCount)
    writeOrder?.append(cache)
  }

  /// Bytes of the table.
  var byteCount: UInt64 { count * Self.entrySize }

  /// The entry of `index`, which must be below `count`.
  func entry(at index: UInt64) throws(EngineError) -> Entry {
    let (sliceOffset, position) = try place(of: index)
    // SAFETY: `place` gives a position whose entry lies whole inside the slice.
    let raw = unsafe try cache.slice(at: sliceOffset).loadUnaligned(fromByteOffset: position, as: Entry.self)
    return order == .bigEndian ? Entry(bigEndian: raw) : Entry(littleEndian: raw)
  }

  /// Changes the entry of `index`, which must be below `count`.
  func setEntry(at index: UInt64, to value: Entry) throws(EngineError) {
    let (sliceOffset, position) = try place(of: index)
    let raw = order == .bigEndian ? value.bigEndian : value.littleEndian
    // SAFETY: as above.
    unsafe try cache.slice(at: sliceOffset).storeBytes(of: raw, toByteOffset: position, as: Entry.self)
    cache.markDirty(at: sliceOffset)
  }

  private func place(of index: UInt64) throws(EngineError) -> (sliceOffset: UInt64, position: Int) {
    guard index < count else { throw .corrupt("The table of \(count) entries has no entry \(index)") }
    let byte = index * Self.entrySize
    let sliceOffset = hostOffset + byte.aligned(downTo: Self.sliceByteCount)
    return (sliceOffset, Int(byte & (Self.sliceByteCount - 1)))
  }
}
