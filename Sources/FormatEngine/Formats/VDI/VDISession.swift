/// Which rooms of the file can be handed out, from the first change of an image to its closing.
///
/// Other programs put the next block where the header's count of blocks says: they know no holes. While we write there
/// may be some, and the count then stands for the first room after all that are in use; closing moves blocks into
/// the holes (`VDICompactor`).
struct VDISession {
  private(set) var used: VDIRoomSet
  /// First room after all that are in use.
  private(set) var end: UInt64
  /// No room below it is free.
  private var lowestFree: UInt32 = 0
  /// Rooms that entries on disk may still lead to.
  private(set) var released: [UInt32] = []
  /// More is written out first, rather than held in memory.
  private static let maximumReleased = 65536

  /// Refuses images in which two blocks share a room, or a block lies outside of the file: a write could go to bytes
  /// that belong to another block.
  init(_ file: any ByteStore, _ header: VDIHeader, _ geometry: VDIGeometry) throws(EngineError) {
    let roomCount = geometry.roomCount(inFileOf: try file.byteCount())
    var used = VDIRoomSet()
    var end: UInt64 = 0
    try VDIMapScan(file, header).forEachRoom { (block, room) throws(EngineError) in
      guard UInt64(room) < roomCount, used.insert(room) else {
        throw .corrupt(
          "The block map is damaged in its entry \(block), so nothing is written to the image; 'check -r all' "
            + "mends it", at: block * geometry.blockSize)
      }
      end = max(end, UInt64(room) + 1)
    }
    self.used = used
    self.end = end
  }

  /// Rooms were given back, so that the file may be longer than what is in use.
  private(set) var hasGivenBack = false

  /// Whether some room before `end` is not in use.
  var hasHoles: Bool { used.count < end }
  var wantsFlush: Bool { released.count >= Self.maximumReleased }

  /// At most `count` rooms in a row; nil where none is left among `limit` of them.
  mutating func allocate(atMost count: UInt64, limit: UInt64) -> (room: UInt32, count: UInt64)? {
    if used.count < end {
      let room = used.firstFree(from: lowestFree)
      _ = used.insert(room)
      lowestFree = room + 1
      return (room, 1)
    }
    guard end < limit, count > 0 else { return nil }
    let taken = min(count, limit - end)
    let first = UInt32(end)
    for index in 0..<UInt32(taken) { _ = used.insert(first + index) }
    end += taken
    return (first, taken)
  }

  /// A certain room, which is free; it may lie behind all that are in use.
  mutating func take(_ room: UInt32) {
    _ = used.insert(room)
    end = max(end, UInt64(room) + 1)
  }

  /// Rooms that were handed out and that no entry leads to.
  mutating func takeBack(_ rooms: Range<UInt32>) {
    for room in rooms { free(room) }
    lowerEnd()
  }

  /// A room that no entry in memory leads to any more.
  mutating func release(_ room: UInt32) { released.append(room) }

  /// All entries are on disk: what was released before is free.
  mutating func flushed() {
    for room in released { free(room) }
    released.removeAll()
    lowerEnd()
  }

  private mutating func free(_ room: UInt32) {
    hasGivenBack = true
    used.remove(room)
    lowestFree = min(lowestFree, room)
  }

  private mutating func lowerEnd() {
    while end > 0, !used.contains(UInt32(end - 1)) { end -= 1 }
  }
}
