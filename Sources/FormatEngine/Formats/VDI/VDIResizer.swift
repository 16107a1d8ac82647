import Synchronization

extension VDILayer: Resizable {
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    let old = virtualSize
    guard newSize.isAligned(to: 512) else { throw .invalid("The new size must be a multiple of 512") }
    guard newSize != old else { return }
    if newSize > old {
      try grow(from: old, to: newSize, preallocation, progress, clearing: clearing)
    } else {
      try change { (state) throws(EngineError) in try state.recordSize(newSize) }
      // Whatever fails from here on: a guest has the disk that the header tells of.
      size.store(newSize, ordering: .relaxed)
      try change { (state) throws(EngineError) in try state.shrink(to: newSize) }
    }
  }

  /// The new size is recorded last: what it brings into the disk reads as zeros by then.
  private func grow(
    from old: UInt64, to newSize: UInt64, _ preallocation: Preallocation, _ progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    let isFixed = try change { (state) throws(EngineError) in
      try state.lengthenMap(forVirtualSize: newSize)
      return state.geometry.type == .fixed
    }
    size.store(newSize, ordering: .relaxed)
    do throws(EngineError) {
      try clearing()
      if isFixed || preallocation != .off {
        try setAside(from: old.aligned(upTo: clusterSize), to: newSize, preallocation, progress)
      }
      try flush()
      try change { (state) throws(EngineError) in try state.recordSize(newSize) }
    } catch {
      size.store(old, ordering: .relaxed)
      throw error
    }
  }

  /// Gives room to every block of the new part that has none.
  private func setAside(
    from start: UInt64, to end: UInt64, _ preallocation: Preallocation, _ progress: Progress
  ) throws(EngineError) {
    var offset = start
    while offset < end {
      try progress.step(offset - start, of: end - start)
      let room = try allocate(at: offset, limit: end - offset)
      if room.isNew {
        do throws(EngineError) {
          try prepare(room, preallocation)
        } catch {
          abandon(room)
          throw error
        }
        try link(room)
      }
      offset = room.guestEnd
    }
  }

  private func prepare(_ room: Allocation, _ preallocation: Preallocation) throws(EngineError) {
    let store = store(room.store)
    if !room.readsAsZeros, preallocation != .full {
      try store.writeZeros(at: room.hostOffset, count: room.length, freeing: false)
    } else {
      try store.setAside(at: room.hostOffset, count: room.length, preallocation)
    }
  }
}

extension VDIState {
  /// Writes the size of the disk. Where that fails the header has the old one again, and the next flush writes that.
  mutating func recordSize(_ byteCount: UInt64) throws(EngineError) {
    let old = header.diskSize
    header.diskSize = byteCount
    do throws(EngineError) {
      try order.flush()
    } catch {
      header.diskSize = old
      throw error
    }
  }

  // MARK: Growing

  /// Makes the block map long enough for a larger disk. The new entries hold nothing.
  mutating func lengthenMap(forVirtualSize newSize: UInt64) throws(EngineError) {
    let count = newSize.dividedRoundingUp(by: geometry.blockSize)
    guard newSize <= VDIHeader.maximumVirtualSize, count <= VDIHeader.maximumBlockCount else {
      throw EngineError(.tooLarge, "The image size is too large for file format 'vdi'")
    }
    guard count > geometry.blockCount else { return }
    try flush()
    var longer = header
    if UInt64(header.mapOffset) + count * 4 <= geometry.dataOffset {
      try writeFreeEntries(from: geometry.blockCount, to: count, ofMapAt: UInt64(header.mapOffset))
      try file.flush()
    } else {
      longer = try moveMap(toCountOf: count)
    }
    longer.blockCount = UInt32(count)
    try useMap(of: longer)
  }

  /// Puts a copy of the map where the first blocks are now, and those at the end of the file. The old map stays in use until
  /// one write of the header's sector names the new place: the header that it gives.
  private mutating func moveMap(toCountOf count: UInt64) throws(EngineError) -> VDIHeader {
    let shift = (count * 4).dividedRoundingUp(by: geometry.unit)
    let place = geometry.dataOffset
    let newDataOffset = place + shift * geometry.unit
    // As many rooms as are moved may come behind the last one, and all need numbers.
    let end = max(session?.end ?? 0, shift)
    guard newDataOffset <= UInt64(UInt32.max), end + shift <= UInt64(VDIEntry.zeros.raw) else {
      throw EngineError(.tooLarge, "There is no room for a longer block map before the first block")
    }
    try evacuate(roomsBelow: UInt32(shift), to: end)
    try copyMap(to: place, shift: UInt32(shift))
    try writeFreeEntries(from: geometry.blockCount, to: count, ofMapAt: place)
    if try file.byteCount() < newDataOffset { try file.resize(to: newDataOffset) }
    try file.flush()
    var moved = header
    moved.mapOffset = UInt32(place)
    moved.dataOffset = UInt32(newDataOffset)
    moved.allocatedBlockCount = UInt32(max(session?.end ?? 0, shift) - shift)
    return moved
  }

  /// Writes the entries to another place. Numbers of rooms count from the first block on, so that all become lower by
  /// `shift`.
  private func copyMap(to place: UInt64, shift: UInt32) throws(EngineError) {
    var pieces: [UInt8] = []
    let pieceCount = 65536
    var written: UInt64 = 0
    for block in 0..<geometry.blockCount {
      let entry = VDIEntry(try map.entry(at: block))
      pieces.append(littleEndian: entry.room.map { $0 - shift } ?? entry.raw)
      if pieces.count == pieceCount * 4 || block + 1 == geometry.blockCount {
        try file.write(bytes: pieces, at: place + written * 4)
        written += UInt64(pieces.count / 4)
        pieces.removeAll(keepingCapacity: true)
      }
    }
  }

  /// Moves the blocks of the first rooms behind all others. They are on disk there when it returns; for as long as
  /// the old map is in use, their rooms may have higher numbers than other programs like. Whatever fails on the way, and after
  /// it, the map on disk and what is known of its rooms go together.
  private mutating func evacuate(roomsBelow limit: UInt32, to end: UInt64) throws(EngineError) {
    var target = UInt32(end)
    for block in 0..<geometry.blockCount {
      guard let room = VDIEntry(try map.entry(at: block)).room, room < limit else { continue }
      session?.take(target)
      raiseCount(to: target + 1)
      do throws(EngineError) {
        try copyRoom(room, to: target)
        fileEnd = max(fileEnd, geometry.roomOffset(target) + geometry.unit)
        try map.setEntry(at: block, to: target)
      } catch {
        session?.takeBack(target..<target + 1)
        throw error
      }
      session?.release(room)
      target += 1
    }
    try flush()
  }

  private func writeFreeEntries(from first: UInt64, to end: UInt64, ofMapAt mapOffset: UInt64)
    throws(EngineError)
  {
    let piece: UInt64 = 65536
    var index = first
    while index < end {
      let count = min(piece, end - index)
      try file.write(bytes: [UInt8](repeating: 0xff, count: Int(count) * 4), at: mapOffset + index * 4)
      index += count
    }
  }

  /// Writes another header: from now on the map is where it says, and as long. All else is on disk already.
  private mutating func useMap(of newHeader: VDIHeader) throws(EngineError) {
    do throws(EngineError) {
      header = newHeader
      try headerSector.writeBack()
      try file.flush()
    } catch {
      try? reload()
      throw error
    }
    try reload()
  }

  // MARK: Shrinking

  /// The new size is on disk. What lies past it is no longer read, so it can go step by step.
  mutating func shrink(to newSize: UInt64) throws(EngineError) {
    let count = newSize.dividedRoundingUp(by: geometry.blockSize)
    for block in count..<max(geometry.blockCount, count) {
      try free(block: block)
      if session?.wantsFlush == true { try flush() }
    }
    try flush()
    // Rooms are numbered below the count of blocks, so this comes before that gets lower.
    try compact()
    var shorter = header
    shorter.blockCount = UInt32(count)
    try useMap(of: shorter)
  }

  /// Takes a block out of the map, then lets go of its room: an entry that stays, since it could not be changed, keeps it.
  mutating func free(block: UInt64) throws(EngineError) {
    let room = VDIEntry(try map.entry(at: block)).room
    try map.setEntry(at: block, to: VDIEntry.free.raw)
    if let room { session?.release(room) }
  }
}

extension VDILayer: Emptyable {
  func removeContent(progress: Progress) throws(EngineError) {
    try change { (state) throws(EngineError) in
      guard state.geometry.type != .fixed else { throw .unsupported("Operation not supported") }
      for block in 0..<state.geometry.blockCount {
        guard VDIEntry(try state.map.entry(at: block)) != .free else { continue }
        try state.free(block: block)
        if state.session?.wantsFlush == true { try state.flush() }
      }
      try state.flush()
      try state.compact()
    }
  }
}

extension VDILayer: ParentRecording {
  func recordState(ofParent parent: any ImageLayer) throws(EngineError) {
    guard let parent = parent as? VDILayer else { return }
    let header = parent.state.withLock { $0.header }
    try change { (state) throws(EngineError) in
      state.header.setParent(header)
      try state.flush()
    }
  }
}

extension VDILayer: BackingChanging {
  var storedUnit: UInt64 { clusterSize }
  var marksZeros: Bool { true }

  func setBacking(_ backing: BackingReference?) throws(EngineError) {
    // Not this image names it, but who puts it there.
    let references = request.references.trusting(request.path)
    let parent = try backing.map { (backing) throws(EngineError) in
      try VDIParentFinder.parent(backing, references, namedBy: request.path)
    }
    try change { (state) throws(EngineError) in
      guard state.geometry.type != .fixed else {
        throw .unsupported("A static image has no backing file")
      }
      if let parent {
        state.header.type = VDIImageType.differencing.rawValue
        state.header.setParent(parent)
      } else {
        state.header.type = VDIImageType.dynamic.rawValue
        (state.header.parent, state.header.parentModification) = (.none, .none)
      }
      state.geometry = try state.header.validated()
      try state.order.flush()
    }
    foundParent.withLock { $0 = nil }
  }
}
