/// What a dynamic disk needs to be changed: where new blocks go. Lives in its layer's lock.
struct VPCSession {
  var rooms: BlockAllocator
  /// Rooms that an entry on disk may still point to; the host's room goes back after the next flush.
  var forgotten: [UInt64] = []
  /// Some block was let go of.
  var hasReleased = false
  /// Whether no two blocks overlap, so that the room of one is nobody else's; nil until the first one goes.
  var hasBlocksApart: Bool?
  /// Where the footer is known to be.
  var footerOffset: UInt64

  /// `rooms.end` is the first byte after everything in the file but the footer.
  init(rooms: BlockAllocator) {
    self.rooms = rooms
    footerOffset = rooms.end
  }

  static let missing = EngineError(.readOnly, "The image is not prepared for changes")
}

extension VPCState {
  /// The largest file: a block begins at most at the last sector that an entry can name.
  private var maximumEnd: UInt64 {
    UInt64(VPCGeometry.unused - 1) * VPCGeometry.sectorSize + geometry.roomSize
  }

  /// Called before every change; the first one looks through the whole table for where the blocks end.
  mutating func prepareToWrite() throws(EngineError) {
    guard session == nil else { return }
    let blockEnd = try endOfBlocks()
    // Blocks that are cut off would come to lie over new ones.
    guard blockEnd <= knownEnd else {
      throw .corrupt(
        "The image has been truncated: its last block ends at \(blockEnd), past the end of the file")
    }
    let end = max(metadata.end, contentEnd, blockEnd).aligned(upTo: VPCGeometry.sectorSize)
    if !copies.isHeadSound { try file.write(bytes: footer.bytes, at: 0) }
    session = VPCSession(rooms: BlockAllocator(unit: geometry.roomSize, end: end))
    // A footer that is missing, damaged or not last is written anew with the first change.
    if !hasSoundEnd || contentEnd != end { fileEnd.move(footer, to: end) }
  }

  /// First byte after all blocks, 0 where there is none.
  func endOfBlocks() throws(EngineError) -> UInt64 {
    var last: UInt64 = 0
    for index in 0..<geometry.blockCount {
      let entry = try table.entry(at: index)
      if entry != VPCGeometry.unused { last = max(last, VPCGeometry.roomOffset(entry) + geometry.roomSize) }
    }
    return last
  }

  /// Takes room off the end of the file that blocks have left, once they are gone from the table on disk.
  mutating func trimEnd() throws(EngineError) {
    let end = max(metadata.end, try endOfBlocks()).aligned(upTo: VPCGeometry.sectorSize)
    guard let session, end < session.rooms.end else { return }
    fileEnd.move(footer, to: end)
    do throws(EngineError) { try order.flush() } catch {
      fileEnd.move(footer, to: session.footerOffset)
      throw error
    }
    (contentEnd, hasSoundEnd) = (end, true)
    knownEnd = end + UInt64(VPCFooter.byteCount)
    self.session = nil
  }

  /// Room for a block with its bitmap.
  mutating func takeRoom() throws(EngineError) -> UInt64 {
    // The session is changed in its place: a copy would copy the list of all free rooms.
    let limit = maximumEnd
    guard let room = try session?.rooms.allocate(atMost: 1, limit: limit) else { throw VPCSession.missing }
    noteEnd()
    return room.hostOffset
  }

  /// Room that no entry has pointed to.
  mutating func giveBack(_ room: UInt64) {
    session?.rooms.takeBack(room, count: 1)
    noteEnd()
  }

  /// Takes a block out of the table. Its room, to which an entry on disk may still point, can be used again later;
  /// where blocks overlap, which is damage, it may be another one's, and stays as it is.
  mutating func remove(block index: UInt64, from room: UInt64?) throws(EngineError) {
    if session?.hasBlocksApart == nil {
      let areApart = try areBlocksApart()
      session?.hasBlocksApart = areApart
    }
    try table.setEntry(at: index, to: VPCGeometry.unused)
    session?.hasReleased = true
    guard let room, session?.hasBlocksApart == true else { return }
    session?.rooms.release(room)
    session?.forgotten.append(room)
  }

  /// Lets go of all blocks from one on. On disk when it returns.
  mutating func removeAll(from first: UInt64, _ progress: Progress) throws(EngineError) {
    guard first < geometry.blockCount else { return try flush() }
    for index in first..<geometry.blockCount {
      try progress.step(index - first, of: geometry.blockCount - first)
      guard try table.entry(at: index) != VPCGeometry.unused else { continue }
      // Entries that lead nowhere go, too.
      let room = try? room(ofBlock: index)
      try remove(block: index, from: room)
    }
    try flush()
  }

  /// Whether no two entries of the table lead to the same bytes.
  private func areBlocksApart() throws(EngineError) -> Bool {
    var entries: [UInt32] = []
    for index in 0..<geometry.blockCount {
      let entry = try table.entry(at: index)
      guard entry != VPCGeometry.unused else { continue }
      // Those of 32 TiB; more is nobody's disk, and not worth the memory.
      guard entries.count < 1 << 24 else { return false }
      entries.append(entry)
    }
    entries.sort()
    let roomSectors = geometry.roomSize / VPCGeometry.sectorSize
    return zip(entries, entries.dropFirst()).allSatisfy { UInt64($1) - UInt64($0) >= roomSectors }
  }

  /// The footer follows the end of the blocks.
  mutating func noteEnd() {
    guard let end = session?.rooms.end else { return }
    knownEnd = max(knownEnd, end)
    guard end != session?.footerOffset else { return }
    session?.footerOffset = end
    fileEnd.move(footer, to: end)
  }

  mutating func flush() throws(EngineError) {
    try order.flush()
    session?.rooms.flushed()
    let forgotten = session?.forgotten ?? []
    session?.forgotten = []
    for room in forgotten { file.forget(at: room, count: geometry.roomSize) }
  }
}
