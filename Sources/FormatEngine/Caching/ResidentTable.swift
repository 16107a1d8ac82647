/// A table of big-endian 64-bit entries that is held in memory whole and written back by blocks. Pieces that hold nothing
/// but zeros take no memory: of the 32 MiB that a table may have, a small file may claim all.
final class ResidentTable: OrderedTable {
  private let store: any ByteStore
  /// Where the table starts in the store, in bytes.
  private(set) var hostOffset: UInt64
  private(set) var count: Int
  /// In disk order, so that blocks are written as they are; the last piece may be shorter. Nil: zeros.
  private var pieces: [[UInt64]?]
  private var dirtyBlocks: Set<Int> = []
  private static let entriesInBlock = 64
  private static let entriesInPiece = 4096

  init(store: any ByteStore, hostOffset: UInt64, count: Int) throws(EngineError) {
    self.store = store
    self.hostOffset = hostOffset
    self.count = count
    pieces = Self.zeros(count)
    for index in pieces.indices {
      var piece = [UInt64](repeating: 0, count: length(ofPiece: index))
      var failure: EngineError?
      let place = hostOffset + UInt64(index * Self.entriesInPiece * 8)
      unsafe piece.withUnsafeMutableBytes { raw in
        do throws(EngineError) { unsafe try store.read(into: raw, at: place) } catch { failure = error }
      }
      if let failure { throw failure }
      if !piece.allSatisfy({ $0 == 0 }) { pieces[index] = piece }
    }
  }

  /// A table that is new: nothing of it is on disk yet.
  init(store: any ByteStore, hostOffset: UInt64, values: [UInt64]) {
    self.store = store
    self.hostOffset = hostOffset
    count = values.count
    pieces = Self.zeros(count)
    for (index, value) in values.enumerated() where value != 0 { put(value.bigEndian, at: index) }
    markAllDirty()
  }

  private static func zeros(_ count: Int) -> [[UInt64]?] {
    [[UInt64]?](repeating: nil, count: (count + entriesInPiece - 1) / entriesInPiece)
  }

  private func length(ofPiece index: Int) -> Int {
    min(Self.entriesInPiece, count - index * Self.entriesInPiece)
  }

  private func put(_ raw: UInt64, at index: Int) {
    let number = index / Self.entriesInPiece
    if pieces[number] == nil {
      if raw == 0 { return }
      pieces[number] = [UInt64](repeating: 0, count: length(ofPiece: number))
    }
    pieces[number]?[index % Self.entriesInPiece] = raw
  }

  /// Bytes that the table takes in memory.
  var residentByteCount: Int { pieces.reduce(0) { $0 + ($1?.count ?? 0) * 8 } }
  var isDirty: Bool { !dirtyBlocks.isEmpty }

  /// 0 where the table has no such entry.
  subscript(_ index: UInt64) -> UInt64 {
    guard index < UInt64(count), let piece = pieces[Int(index) / Self.entriesInPiece] else { return 0 }
    return UInt64(bigEndian: piece[Int(index) % Self.entriesInPiece])
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
      let last = pieces.count - 1
      self.count = count
      if last >= 0, let piece = pieces[last] {
        pieces[last] = piece + [UInt64](repeating: 0, count: length(ofPiece: last) - piece.count)
      }
      pieces += Self.zeros(count).dropFirst(pieces.count)
    }
    markAllDirty()
  }

  private func markAllDirty() {
    dirtyBlocks = Set(0..<(count + Self.entriesInBlock - 1) / Self.entriesInBlock)
  }

  func writeBack() throws(EngineError) {
    let blocks = dirtyBlocks.sorted()
    var index = 0
    while index < blocks.count {
      // Neighbours in a piece go out with one write.
      let piece = blocks[index] * Self.entriesInBlock / Self.entriesInPiece
      let pieceEnd = (piece + 1) * Self.entriesInPiece / Self.entriesInBlock
      var end = index + 1
      while end < blocks.count, blocks[end] == blocks[end - 1] + 1, blocks[end] < pieceEnd { end += 1 }
      let start = piece * Self.entriesInPiece
      let first = blocks[index] * Self.entriesInBlock - start
      let last = min((blocks[end - 1] + 1) * Self.entriesInBlock - start, length(ofPiece: piece))
      let entries = pieces[piece] ?? [UInt64](repeating: 0, count: length(ofPiece: piece))
      var failure: EngineError?
      unsafe entries[first..<last].withUnsafeBytes { raw in
        do throws(EngineError) {
          unsafe try store.write(raw, at: hostOffset + UInt64((start + first) * 8))
        } catch { failure = error }
      }
      if let failure { throw failure }
      dirtyBlocks.subtract(blocks[index..<end])
      index = end
    }
  }
}
