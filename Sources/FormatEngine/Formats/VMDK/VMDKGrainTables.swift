/// The grain directory of a sparse extent, its grain tables, and their redundant copies. Lives in its layer's lock.
///
/// Entries are little-endian and have 32 bits: sectors of the file, 0 where there is nothing.
final class VMDKGrainTables {
  let geometry: VMDKGrainGeometry
  let file: any ByteStore
  let order: WriteOrder
  /// The primary one first.
  private let copies: [Copy]
  var fileEnd: FileEnd

  /// One directory with its tables.
  struct Copy {
    var directory: EntryTable<UInt32>
    let tables: TableCache
  }

  /// `cacheByteCount`: memory for tables, at most.
  init(_ geometry: VMDKGrainGeometry, file: any ByteStore, cacheByteCount: UInt64) throws(EngineError) {
    self.geometry = geometry
    self.file = file
    fileEnd = try FileEnd(of: file)
    // Two directories, and the tables of both.
    let cacheByteCount = cacheByteCount / 4
    let order = WriteOrder(stores: [file], firstRankPoints: true)
    self.order = order
    let tables = ([geometry.directoryOffset] + (geometry.redundantDirectoryOffset.map { [$0] } ?? [])).map {
      _ in
      TableCache(
        store: file, order: order, sliceByteCount: Int(geometry.tableByteCount),
        capacity: min(cacheByteCount, geometry.directoryCount * geometry.tableByteCount))
    }
    order.append(VMDKTableRank(tables))
    // The redundant directory is written before the primary one, which is what counts.
    var copies: [Copy] = []
    let offsets = [geometry.directoryOffset] + (geometry.redundantDirectoryOffset.map { [$0] } ?? [])
    for (offset, cache) in zip(offsets, tables).reversed() {
      let directory = EntryTable<UInt32>(
        in: file, at: offset, count: geometry.directoryCount, .littleEndian, cacheByteCount: cacheByteCount,
        writeOrder: order)
      copies.insert(Copy(directory: directory, tables: cache), at: 0)
    }
    self.copies = copies
  }

  var copyCount: Int { copies.count }

  // MARK: Reading

  /// Calls `body` with the grain table for a guest offset, nil where there is none. A primary copy that cannot be
  /// true or cannot be read is answered for by the redundant one.
  func withTable<T>(
    at offset: UInt64, _ body: (VMDKGrainTable?) throws(EngineError) -> T
  ) throws(EngineError) -> T {
    do throws(EngineError) {
      return unsafe try body(try table(at: offset, copy: 0))
    } catch {
      guard copies.count > 1 else { throw error }
      do throws(EngineError) { return unsafe try body(try table(at: offset, copy: 1)) } catch _ {
        throw error
      }
    }
  }

  /// The grain table for a guest offset in one of the copies, nil where there is none. Good until the next call.
  func table(at offset: UInt64, copy: Int) throws(EngineError) -> VMDKGrainTable? {
    let index = geometry.tableIndex(offset)
    guard let place = try tableOffset(index, copy: copy) else { return nil }
    return unsafe VMDKGrainTable(bytes: try copies[copy].tables.slice(at: place))
  }

  /// Where the table of an entry of the directory is, nil where there is none.
  func tableOffset(_ index: UInt64, copy: Int) throws(EngineError) -> UInt64? {
    switch try place(ofTable: index, copy: copy) {
    case .none: return nil
    case .at(let place): return place
    case .unknown: throw FileEnd.pastEnd("The grain directory", copies[copy].directory.hostOffset)
    case .wrong(let place):
      guard place > VMDKExtentLine.sectorByteCount else {
        throw .corrupt("Grain table \(index) lies in the header of the extent", at: place)
      }
      throw FileEnd.pastEnd("Grain table \(index)", place)
    }
  }

  /// What an entry of a directory says.
  enum TablePlace {
    case none
    /// The first byte of the table.
    case at(UInt64)
    /// There is no table there.
    case wrong(UInt64)
    /// The directory itself is not in the file.
    case unknown

    /// The first byte of a table that is there.
    var offset: UInt64? { if case .at(let offset) = self { offset } else { nil } }
  }

  /// The same without words for damage: a directory has millions of entries.
  func place(ofTable index: UInt64, copy: Int) throws(EngineError) -> TablePlace {
    guard try hasDirectory(copy) else { return .unknown }
    return try place(ofTable: index, copy: copy) { (end) throws(EngineError) in try fileEnd.reaches(end) }
  }

  /// What the entry of a directory says that is in the file. `isInFile`: whether the file has all bytes before an offset.
  func place(
    ofTable index: UInt64, copy: Int, _ isInFile: (UInt64) throws(EngineError) -> Bool
  ) throws(EngineError) -> TablePlace {
    let sector = try copies[copy].directory.entry(at: index)
    guard sector != 0 else { return .none }
    let place = UInt64(sector) * VMDKExtentLine.sectorByteCount
    // The last table may be cut off behind the last grain.
    let end = place + 4 * geometry.entryCount(ofTable: index)
    guard sector > 1, try isInFile(end) else { return .wrong(place) }
    return .at(place)
  }

  /// Whether one of the directories is in the file, all of it.
  func hasDirectory(_ copy: Int) throws(EngineError) -> Bool {
    try fileEnd.reaches(directoryEnd(copy))
  }

  /// First byte behind one of the directories.
  func directoryEnd(_ copy: Int) -> UInt64 { copies[copy].directory.hostOffset + geometry.directoryByteCount }

  // MARK: Changing

  /// Changes entries of the table at `offset`, which is there, in all copies.
  func setEntries(
    at offset: UInt64, count: Int, to value: (Int) -> VMDKGrainEntry
  ) throws(EngineError) {
    let index = geometry.tableIndex(offset)
    let first = geometry.entryIndex(offset)
    for copy in copies.indices {
      guard let place = try tableOffset(index, copy: copy) else {
        throw .corrupt("The redundant grain directory has no table \(index)", at: offset)
      }
      let table = unsafe VMDKGrainTable(bytes: try copies[copy].tables.slice(at: place))
      for number in 0..<count { unsafe table.set(first + number, to: value(number)) }
      copies[copy].tables.markDirty(at: place)
    }
  }

  /// Lets an entry of one directory point to a table that is written already, or, at 0, to none.
  func setDirectoryEntry(_ index: UInt64, to place: UInt64, copy: Int) throws(EngineError) {
    try copies[copy].directory.setEntry(
      at: index, to: UInt32(truncatingIfNeeded: place / VMDKExtentLine.sectorByteCount))
  }

  /// Puts an empty table for an entry of the directory at `places`, one for each copy: in all directories, or in none where
  /// it fails. All that may fail comes first: once an entry was read, its slice is there to be changed.
  func addTable(_ index: UInt64, at places: [UInt64]) throws(EngineError) {
    for (copy, place) in places.enumerated() { _ = unsafe try copies[copy].tables.freshSlice(at: place) }
    for copy in places.indices { _ = try copies[copy].directory.entry(at: index) }
    for (copy, place) in places.enumerated() { try setDirectoryEntry(index, to: place, copy: copy) }
    if let last = places.max() { fileEnd.expect(last + geometry.tableByteCount) }
  }
}

/// The entries of one grain table in a cache.
@unsafe struct VMDKGrainTable {
  let bytes: UnsafeMutableRawBufferPointer

  /// `index` must be one of the table.
  func entry(_ index: Int) -> VMDKGrainEntry {
    // SAFETY: the buffer has all entries of the table.
    VMDKGrainEntry(
      raw: UInt32(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)))
  }

  func set(_ index: Int, to entry: VMDKGrainEntry) {
    unsafe bytes.storeBytes(of: entry.raw.littleEndian, toByteOffset: 4 * index, as: UInt32.self)
  }
}

/// Grain tables of all copies: they refer to the same grains, so none waits for another.
private final class VMDKTableRank: OrderedTable {
  private let tables: [TableCache]

  init(_ tables: [TableCache]) { self.tables = tables }

  var isDirty: Bool { tables.contains { $0.isDirty } }

  func writeBack() throws(EngineError) {
    for table in tables { try table.writeBack() }
  }
}
