/// What closing an image does about rooms that nobody uses.
extension VDIState {
  /// Moves blocks from the end of the file into rooms before them that are free, until none is, counts the blocks in
  /// the header and cuts off the end of the file. Everything else is on disk when it is called, and nobody
  /// reads or writes the disk meanwhile: what a block's entry said before may be read until then.
  ///
  /// In that order on disk: copies, entries that lead to them, the count. A crash on the way leaves a count that
  /// is too high, which `check` mends.
  mutating func compact() throws(EngineError) {
    guard let session else { return }
    let count = session.used.count
    if session.hasHoles { try moveBlocks(toRoomsBelow: UInt32(count)) }
    if UInt64(header.allocatedBlockCount) != count {
      header.allocatedBlockCount = UInt32(count)
      try order.flush()
    }
    let end = geometry.roomOffset(UInt32(count))
    if session.hasGivenBack, try file.byteCount() > end {
      try file.resize(to: end)
      fileEnd = try file.byteCount()
      try file.flush()
    }
  }

  private mutating func moveBlocks(toRoomsBelow count: UInt32) throws(EngineError) {
    var hole: UInt32 = 0
    for block in 0..<geometry.blockCount {
      guard let room = VDIEntry(try map.entry(at: block)).room, room >= count, let used = session?.used else {
        continue
      }
      hole = used.firstFree(from: hole)
      try copyRoom(room, to: hole)
      session?.take(hole)
      try map.setEntry(at: block, to: hole)
      session?.release(room)
    }
    try flush()
  }

  /// Copies all of a room, also what stands before the guest's bytes.
  func copyRoom(_ source: UInt32, to target: UInt32) throws(EngineError) {
    let buffer = AlignedBuffer(byteCount: Int(min(geometry.unit, MiB)))
    var done: UInt64 = 0
    while done < geometry.unit {
      let piece = unsafe buffer.prefix(Int(min(geometry.unit - done, UInt64(buffer.byteCount))))
      unsafe try file.read(into: piece, at: geometry.roomOffset(source) + done)
      unsafe try file.write(UnsafeRawBufferPointer(piece), at: geometry.roomOffset(target) + done)
      done += UInt64(piece.count)
    }
  }
}
