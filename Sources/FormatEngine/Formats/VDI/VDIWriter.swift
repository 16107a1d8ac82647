import Synchronization

/// Where written bytes go: the VDI half of the chain's write.
extension VDILayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try change { (state) throws(EngineError) in try state.allocate(at: offset, limit: limit) }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.link(allocation) }
  }

  func abandon(_ allocation: Allocation) {
    guard allocation.isNew else { return }
    state.withLock { state in
      let first = state.geometry.roomIndex(allocation.hostOffset)
      let count = UInt32(allocation.length >> state.geometry.blockBits)
      state.session?.takeBack(first..<first + count)
    }
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    try letGo(at: offset, limit: limit, keepingRoom ? .keepingRoom : .zeros)
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let done = try letGo(at: offset, limit: limit, .discard)
    // A part of a block whose other bytes the parent has.
    return done > 0 ? done : min(limit, clusterSize - (offset & (clusterSize - 1)))
  }

  private func letGo(at offset: UInt64, limit: UInt64, _ kind: VDIState.Clearing) throws(EngineError)
    -> UInt64
  {
    let size = virtualSize
    let (count, stored) = try change { (state) throws(EngineError) in
      try state.letGo(at: offset, limit: limit, kind, virtualSize: size)
    }
    // Bytes that stay where they are become zeros there; the range belongs to this call (RangeLock).
    if let stored { try store(0).writeZeros(at: stored, count: count, freeing: kind != .keepingRoom) }
    return count
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      try state.compact()
      state.session = nil
    }
  }

  /// Runs a change of the tables. The first one prepares the image for it.
  func change<T>(_ body: (inout sending VDIState) throws(EngineError) -> sending T) throws(EngineError)
    -> sending T
  {
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      return try body(&state)
    }
  }
}

extension VDIState {
  /// The first change since the image was opened or closed.
  mutating func prepareToWrite() throws(EngineError) {
    if let failure { throw failure }
    guard session == nil else { return }
    session = try VDISession(file, header, geometry)
    // Images made over this one see that it is no longer what it was.
    header.modification = try .new(identities, for: "modification", after: header.modification)
  }

  // MARK: Writing

  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let index = geometry.blockIndex(offset)
    let wanted = geometry.blockIndex(offset + limit - 1) - index + 1
    if let room = VDIEntry(try map.entry(at: index)).room {
      try require(room, ofBlock: index)
      let count = try storedRun(from: index, room, atMost: wanted)
      let inBlock = geometry.offsetInBlock(offset)
      return Allocation(
        guestOffset: offset, length: count * geometry.blockSize - inBlock,
        hostOffset: geometry.hostOffset(room) + inBlock, isNew: false)
    }
    let (room, count) = try newRooms(atMost: try emptyRun(from: index, atMost: wanted))
    let host = geometry.hostOffset(room)
    return Allocation(
      guestOffset: index * geometry.blockSize, length: count * geometry.blockSize, hostOffset: host,
      isNew: true,
      readsAsZeros: host >= (try file.byteCount()))
  }

  /// Blocks from `index` on whose rooms follow each other.
  private func storedRun(from index: UInt64, _ room: UInt32, atMost limit: UInt64) throws(EngineError)
    -> UInt64
  {
    var count: UInt64 = 1
    guard geometry.blockExtra == 0 else { return count }
    while count < limit, let next = VDIEntry(try map.entry(at: index + count)).room,
      UInt64(next) == UInt64(room) + count
    { count += 1 }
    return count
  }

  /// Blocks from `index` on that have no room, of those whose rooms could be written at once.
  private func emptyRun(from index: UInt64, atMost limit: UInt64) throws(EngineError) -> UInt64 {
    var count: UInt64 = 1
    guard geometry.blockExtra == 0 else { return count }
    while count < limit, VDIEntry(try map.entry(at: index + count)).room == nil { count += 1 }
    return count
  }

  mutating func newRooms(atMost count: UInt64) throws(EngineError) -> (room: UInt32, count: UInt64) {
    let limit = geometry.blockCount
    if let rooms = session?.allocate(atMost: count, limit: limit) { return rooms }
    // What was let go of waits for the entries to be on disk.
    try flush()
    guard let rooms = session?.allocate(atMost: count, limit: limit) else {
      throw EngineError(.noSpace, "All rooms of the image are in use")
    }
    return rooms
  }

  mutating func link(_ allocation: Allocation) throws(EngineError) {
    let first = geometry.roomIndex(allocation.hostOffset)
    let index = geometry.blockIndex(allocation.guestOffset)
    let count = allocation.length >> geometry.blockBits
    var linked: UInt64 = 0
    do throws(EngineError) {
      // Zeros at the end were not written; blocks are whole all the same. The last byte is this block's own:
      // another size of the file could cut off what others write behind it at this moment.
      let end = geometry.hostOffset(first) + allocation.length
      if end > fileEnd {
        if try file.byteCount() < end { try file.write(bytes: [0], at: end - 1) }
        fileEnd = end
      }
      // Entries may go to disk while others are set: a full cache is written out.
      raiseCount(to: first + UInt32(count))
      while linked < count {
        try map.setEntry(at: index + linked, to: first + UInt32(linked))
        linked += 1
      }
    } catch {
      // What is linked has its bytes; no entry leads to the rest.
      session?.takeBack(first + UInt32(linked)..<first + UInt32(count))
      throw error
    }
  }

  /// The header counts rooms before entries on disk lead to them (`WriteOrder`).
  func raiseCount(to end: UInt32) {
    header.allocatedBlockCount = max(header.allocatedBlockCount, end)
  }

  // MARK: Zeros

  /// How guest bytes are let go of.
  enum Clearing { case zeros, keepingRoom, discard }

  /// Says how many bytes from `offset` on read as zeros now, 0 where only writing zeros will do, and where bytes
  /// that stay in place have to be made zeros.
  mutating func letGo(at offset: UInt64, limit: UInt64, _ kind: Clearing, virtualSize: UInt64)
    throws(EngineError) -> (count: UInt64, storedAt: UInt64?)
  {
    var done: UInt64 = 0
    while done < limit {
      let position = offset + done
      let index = geometry.blockIndex(position)
      let inBlock = geometry.offsetInBlock(position)
      let rest = min(limit - done, geometry.blockSize - inBlock)
      let isWhole = inBlock == 0 && (rest == geometry.blockSize || position + rest == virtualSize)
      let entry = VDIEntry(try map.entry(at: index))
      if let room = entry.room {
        try require(room, ofBlock: index)
        guard isWhole, kind != .keepingRoom, geometry.type != .fixed else {
          return done > 0 ? (done, nil) : (rest, geometry.hostOffset(room) + inBlock)
        }
        try map.setEntry(at: index, to: clearedEntry(kind).raw)
        session?.release(room)
      } else if entry == .free && geometry.type.hasParent {
        guard isWhole else { return (done, nil) }
        try map.setEntry(at: index, to: VDIEntry.zeros.raw)
      }
      done += rest
      if session?.wantsFlush == true { try flush() }
    }
    return (done, nil)
  }

  /// What the parent has must not come back.
  private func clearedEntry(_ kind: Clearing) -> VDIEntry {
    kind == .discard && !geometry.type.hasParent ? .free : .zeros
  }

  // MARK: Flushing

  /// All that was linked is on disk; rooms that were let go of can be used again.
  mutating func flush() throws(EngineError) {
    guard var session else { return }
    try order.flush()
    guard !session.released.isEmpty else { return }
    // Still in the lock: no room has a new owner before its bytes are forgotten.
    for room in session.released { file.forget(at: geometry.roomOffset(room), count: geometry.unit) }
    self.session = nil
    session.flushed()
    self.session = session
    try recordCount()
  }

  /// Writes how many rooms are in use, where nothing but that changed.
  mutating func recordCount() throws(EngineError) {
    guard let end = session?.end else { return }
    header.allocatedBlockCount = UInt32(end)
    if order.isDirty { try order.flush() }
  }
}
