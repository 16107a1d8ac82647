/// All chunks of an image in the order of the disk. Held in memory: 40 bytes for each.
struct DMGChunkMap: Sendable {
  let chunks: [DMGChunk]

  /// Tables may come in any order; two chunks for one sector are refused.
  init(_ tables: [DMGBlockTable]) throws(EngineError) {
    // The chunks of a single table are not copied.
    var chunks = tables.first?.chunks ?? []
    if tables.count > 1 {
      chunks.reserveCapacity(tables.reduce(0) { $0 + $1.chunks.count })
      for table in tables.dropFirst() { chunks += table.chunks }
    }
    if !Self.isAscending(chunks) { chunks.sort { $0.firstSector < $1.firstSector } }
    for index in chunks.indices.dropFirst() {
      let (one, next) = (chunks[index - 1], chunks[index])
      guard one.firstSector + one.sectorCount <= next.firstSector else {
        throw .corrupt("Two chunks of the image are for sector \(next.firstSector)")
      }
    }
    self.chunks = chunks
  }

  private static func isAscending(_ chunks: [DMGChunk]) -> Bool {
    for index in chunks.indices.dropFirst() where chunks[index].firstSector < chunks[index - 1].firstSector {
      return false
    }
    return true
  }

  /// The index of the chunk that has a guest byte, or of the first one behind it.
  func index(at offset: UInt64) -> Int {
    var (low, high) = (0, chunks.count)
    while low < high {
      let middle = (low + high) / 2
      if chunks[middle].guestEnd <= offset { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// The chunk that has a guest byte, nil where none has.
  func chunk(at offset: UInt64) -> DMGChunk? {
    let index = index(at: offset)
    guard index < chunks.count, chunks[index].guestStart <= offset else { return nil }
    return chunks[index]
  }
}
