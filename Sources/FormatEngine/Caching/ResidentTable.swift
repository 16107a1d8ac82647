/// A table of big-endian 64-bit entries that is held in memory whole and written back by blocks.
final class ResidentTable: OrderedTable {
  private let store: any ByteStore
  /// Where the table starts in the store, in bytes.
  private(set) var hostOffset: UInt64
  /// In disk order, so that blocks are written as they are.
  private var entries: [UInt64]
  private var dirtyBlocks: Set<Int> = []
  private static let entriesInBlock = 64

  init(store: any ByteStore, hostOffset: UInt64, count: Int) throws(EngineError) {
    self.store = store
    self.hostOffset = hostOffset
    entries = [UInt64](repeating: 0, count: count)
    guard count > 0 else { return }
    var failure: EngineError?
    unsafe entries.withUnsafeMutableBytes { raw in
      do throws(EngineError) { unsafe try store.read(into: raw, at: hostOffset) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  /// A table that is new: nothing of it is on disk yet.
  init(store: any ByteStore, hostOffset: UInt64, values: [UInt64]) {
    self.store = store
    self.hostOffset = hostOffset
    entries = values.map(\.bigEndian)
    markAllDirty()
  }

  var count: Int { entries.count }
  var isDirty: Bool { !dirtyBlocks.isEmpty }

  /// 0 where the table has no such entry.
  subscript(_ index: UInt64) -> UInt64 {
    index < UInt64(entries.count) ? UInt64(bigEndian: entries[Int(index)]) : 0
  }

  /// `index` must be below `count`.
  func set(_ index: UInt64, to value: UInt64) {
    entries[Int(index)] = value.bigEndian
    dirtyBlocks.insert(Int(index) / Self.entriesInBlock)
  }

  /// The table continues at another place, with zeros at its end.
  func relocate(to hostOffset: UInt64, count: Int) {
    self.hostOffset = hostOffset
    if count > entries.count { entries.append(contentsOf: repeatElement(0, count: count - entries.count)) }
    markAllDirty()
  }

  private func markAllDirty() {
    dirtyBlocks = Set(0..<(entries.count + Self.entriesInBlock - 1) / Self.entriesInBlock)
  }

  func writeBack() throws(EngineError) {
    let blocks = dirtyBlocks.sorted()
    var index = 0
    while index < blocks.count {
      // Neighbours go out with one write.
      var end = index + 1
      while end < blocks.count, blocks[end] == blocks[end - 1] + 1 { end += 1 }
      let first = blocks[index] * Self.entriesInBlock
      let last = min((blocks[end - 1] + 1) * Self.entriesInBlock, entries.count)
      var failure: EngineError?
      unsafe entries[first..<last].withUnsafeBytes { raw in
        do throws(EngineError) {
          unsafe try store.write(raw, at: hostOffset + UInt64(first * 8))
        } catch { failure = error }
      }
      if let failure { throw failure }
      dirtyBlocks.subtract(blocks[index..<end])
      index = end
    }
  }
}
