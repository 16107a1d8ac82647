/// A table of big-endian 64-bit entries that is held in memory whole and written back by blocks. Pieces that hold nothing
/// but zeros take no memory: of the 32 MiB that a table may have, a small file may claim all.
@safe final class ResidentTable: OrderedTable {
  private let store: any ByteStore
  /// Where the table starts in the store, in bytes.
  private(set) var hostOffset: UInt64
  private(set) var count: Int
  /// In disk order, so that blocks are written as they are. Nil: zeros. All are of one length, also the last: pointers,
  /// since a lookup that holds on to an array makes readers wait for each other.
  private var pieces: [UnsafeMutablePointer<UInt64>?]
  private var dirtyBlocks: Set<Int> = []
  private static let entriesInBlock = 64
  private static let entriesInPiece = 512
  private static let blocksInWrite = 16384

  init(store: any ByteStore, hostOffset: UInt64, count: Int) throws(EngineError) {
    self.store = store
    self.hostOffset = hostOffset
    self.count = count
    unsafe pieces = []
    unsafe pieces = Self.zeros(count)
    // So much is read at once.
    let step = 8 * Self.entriesInPiece
    for start in stride(from: 0, to: count, by: step) {
      try load(start..<min(start + step, count))
    }
  }

  /// A table that is new: nothing of it is on disk yet.
  init(store: any ByteStore, hostOffset: UInt64, values: [UInt64]) {
    self.store = store
    self.hostOffset = hostOffset
    count = values.count
    unsafe pieces = Self.zeros(count)
    for (index, value) in values.enumerated() where value != 0 { put(value.bigEndian, at: index) }
    markAllDirty()
  }

  deinit { unsafe pieces.forEach { unsafe $0?.deallocate() } }

  private static func zeros(_ count: Int) -> [UnsafeMutablePointer<UInt64>?] {
    unsafe Array(repeating: nil, count: (count + entriesInPiece - 1) / entriesInPiece)
  }

  /// Reads entries from the first of a piece on; what holds zeros only is not kept.
  private func load(_ range: Range<Int>) throws(EngineError) {
    var entries = [UInt64](repeating: 0, count: range.count)
    var failure: EngineError?
    unsafe entries.withUnsafeMutableBytes { raw in
      do throws(EngineError) {
        unsafe try store.read(into: raw, at: hostOffset + UInt64(range.lowerBound * 8))
      } catch { failure = error }
    }
    if let failure { throw failure }
    unsafe entries.withUnsafeBytes { raw in
      if unsafe ZeroScan.isZero(raw) { return }
      // SAFETY: these are the array's own entries.
      let entries = unsafe raw.bindMemory(to: UInt64.self)
      for index in entries.indices { put(unsafe entries[index], at: range.lowerBound + index) }
    }
  }

  /// `index` is below `count`, so its piece is there.
  private func put(_ raw: UInt64, at index: Int) {
    let number = index / Self.entriesInPiece
    guard let piece = unsafe pieces[number] else {
      if raw == 0 { return }
      let piece = UnsafeMutablePointer<UInt64>.allocate(capacity: Self.entriesInPiece)
      unsafe piece.initialize(repeating: 0, count: Self.entriesInPiece)
      unsafe piece[index % Self.entriesInPiece] = raw
      unsafe pieces[number] = piece
      return
    }
    // SAFETY: the remainder is below the length of a piece.
    unsafe piece[index % Self.entriesInPiece] = raw
  }

  /// Bytes that the table takes in memory.
  var residentByteCount: Int {
    unsafe pieces.count { unsafe $0 != nil } * Self.entriesInPiece * 8 + pieces.count * 8
  }
  var isDirty: Bool { !dirtyBlocks.isEmpty }

  /// 0 where the table has no such entry.
  subscript(_ index: UInt64) -> UInt64 {
    guard index < UInt64(count), let piece = unsafe pieces[Int(index) / Self.entriesInPiece] else { return 0 }
    // SAFETY: the remainder is below the length of a piece.
    return UInt64(bigEndian: unsafe piece[Int(index) % Self.entriesInPiece])
  }

  /// `index` must be below `count`.
  func set(_ index: UInt64, to value: UInt64) {
    put(value.bigEndian, at: Int(index))
    dirtyBlocks.insert(Int(index) / Self.entriesInBlock)
  }

  /// The table continues at another place, with zeros at its end.
  func relocate(to hostOffset: UInt64, count: Int) {
    self.hostOffset = hostOffset
    if count > self.count {
      self.count = count
      unsafe pieces += Self.zeros(count).dropFirst(pieces.count)
    }
    markAllDirty()
  }

  /// Undoes `relocate`: the table is where it was on disk, as long as it was, and none of it waits to be written. Only entries
  /// past `count` have changed since.
  func putBack(to hostOffset: UInt64, count: Int) {
    for index in count..<max(count, self.count) where self[UInt64(index)] != 0 { put(0, at: index) }
    self.hostOffset = hostOffset
    self.count = count
    dirtyBlocks = []
  }

  private func markAllDirty() {
    dirtyBlocks = Set(0..<(count + Self.entriesInBlock - 1) / Self.entriesInBlock)
  }

  func writeBack() throws(EngineError) {
    let blocks = dirtyBlocks.sorted()
    var index = 0
    while index < blocks.count {
      // Neighbours go out with one write.
      var end = index + 1
      while end < blocks.count, blocks[end] == blocks[end - 1] + 1, end - index < Self.blocksInWrite {
        end += 1
      }
      let first = blocks[index] * Self.entriesInBlock
      let last = min((blocks[end - 1] + 1) * Self.entriesInBlock, count)
      let entries = (first..<last).map { self[UInt64($0)].bigEndian }
      var failure: EngineError?
      unsafe entries.withUnsafeBytes { raw in
        do throws(EngineError) { unsafe try store.write(raw, at: hostOffset + UInt64(first * 8)) } catch {
          failure = error
        }
      }
      if let failure { throw failure }
      dirtyBlocks.subtract(blocks[index..<end])
      index = end
    }
  }
}
