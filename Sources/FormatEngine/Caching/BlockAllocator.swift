/// Where the blocks of an image go that keeps no list of free ones: where one was let go of, else at the end.
/// All in host bytes. Lives in its layer's lock.
///
/// A block that an entry on disk may still point to is not handed out before that entry is gone from the
/// disk: `release` it, and call `flushed` when the tables are there.
struct BlockAllocator {
  /// Bytes of one block with all that is stored with it.
  let unit: UInt64
  /// First byte after everything that is in use.
  private(set) var end: UInt64
  private var free: [UInt64] = []
  private var released: [UInt64] = []
  /// More are leaked until the image is opened again, rather than held in memory.
  private static let maximumKept = 65536

  /// `end` must be where a block may start.
  init(unit: UInt64, end: UInt64) {
    self.unit = unit
    self.end = end
  }

  /// Room for at most `count` blocks in a row, at least one; `isNew`: nothing was ever there.
  /// `limit`: the first byte that no block may reach, `tooLarge` where there is no room before it.
  mutating func allocate(atMost count: UInt64, limit: UInt64 = maximumFileOffset) throws(EngineError)
    -> (hostOffset: UInt64, count: UInt64, isNew: Bool)
  {
    if let reused = free.popLast() { return (reused, 1, false) }
    let possible = end < limit ? (limit - end) / unit : 0
    guard possible > 0 else {
      throw EngineError(.tooLarge, "The image file has reached the largest size that its format can have")
    }
    let taken = min(max(count, 1), possible)
    let start = end
    end += taken * unit
    return (start, taken, true)
  }

  /// Room that was handed out and that nothing points to.
  mutating func takeBack(_ hostOffset: UInt64, count: UInt64) {
    if hostOffset + count * unit == end {
      end = hostOffset
    } else {
      keep(hostOffset, count, in: &free)
    }
  }

  /// Room that an entry on disk may still point to.
  mutating func release(_ hostOffset: UInt64, count: UInt64 = 1) {
    keep(hostOffset, count, in: &released)
  }

  /// All entries are on disk: what was released before can be handed out.
  mutating func flushed() {
    free.append(contentsOf: released)
    released.removeAll()
  }

  /// Whether room in `range` may be handed out again: nothing else must be put there.
  func keepsRoom(in range: Range<UInt64>) -> Bool {
    (free + released).contains { range.overlaps($0..<$0 + unit) }
  }

  /// Room that is needed for something else than blocks, at the end of the file.
  mutating func reserveEnd(_ byteCount: UInt64) -> UInt64 {
    let start = end
    end += byteCount
    return start
  }

  private func keep(_ hostOffset: UInt64, _ count: UInt64, in list: inout [UInt64]) {
    for index in 0..<count where list.count < Self.maximumKept {
      list.append(hostOffset + index * unit)
    }
  }
}
