import Synchronization

/// Where written bytes go: the dynamic disks' half of the chain's write.
///
/// In a dynamic disk a block is stored whole. In a differencing disk sectors are, so that what the parent has around
/// them need not be copied.
extension VPCLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try change { (state) throws(EngineError) in try state.allocate(at: offset, limit: limit) }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.link(allocation) }
  }

  func abandon(_ allocation: Allocation) {
    state.withLock { state in state.abandon(allocation) }
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    try change { (state) throws(EngineError) in
      try state.setZeros(at: offset, limit: limit, keepingRoom: keepingRoom)
    }
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try change { (state) throws(EngineError) in try state.discard(at: offset, limit: limit) }
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      if state.session?.hasReleased == true { try state.trimEnd() }
    }
  }

  /// Runs a change of the tables. The first one prepares the image for it.
  func change<T>(_ body: (inout sending VPCState) throws(EngineError) -> sending T) throws(EngineError)
    -> sending T
  {
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      return try body(&state)
    }
  }
}

extension VPCState {
  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let index = geometry.blockIndex(offset)
    let blockStart = index << geometry.blockBits
    let end = min(offset + limit, blockStart + geometry.blockSize)
    guard let room = try room(ofBlock: index) else {
      let room = try takeRoom()
      // Sectors of a differencing disk can be stored alone, all other blocks are whole.
      // What of the last block lies past the disk's end nobody reads.
      let start = isDifferencing ? offset.aligned(downTo: VPCGeometry.sectorSize) : blockStart
      let stop =
        isDifferencing
        ? end.aligned(upTo: VPCGeometry.sectorSize) : min(blockStart + geometry.blockSize, virtualSize)
      let host = room + geometry.bitmapSize + (start - blockStart)
      return Allocation(
        guestOffset: start, length: stop - start, hostOffset: host, isNew: true,
        readsAsZeros: try host >= file.byteCount())
    }
    let data = room + geometry.bitmapSize
    let sectors = VPCGeometry.sectors(of: offset - blockStart..<end - blockStart)
    guard isDifferencing else {
      // Programs that go by the bitmap have to see what is written, too.
      try bitmaps.set(sectors, at: room)
      return Allocation(
        guestOffset: offset, length: end - offset, hostOffset: data + (offset - blockStart), isNew: false)
    }
    let run = try bitmaps.run(at: room, from: sectors.lowerBound, to: sectors.upperBound)
    let runEnd = blockStart + (sectors.lowerBound + run.count) * VPCGeometry.sectorSize
    let start = run.isSet ? offset : blockStart + sectors.lowerBound * VPCGeometry.sectorSize
    let stop = run.isSet ? min(end, runEnd) : runEnd
    return Allocation(
      guestOffset: start, length: stop - start, hostOffset: data + (start - blockStart), isNew: !run.isSet)
  }

  mutating func link(_ allocation: Allocation) throws(EngineError) {
    let index = geometry.blockIndex(allocation.guestOffset)
    let blockStart = index << geometry.blockBits
    let inBlock = allocation.guestOffset - blockStart
    let room = allocation.hostOffset - inBlock - geometry.bitmapSize
    let isNew = try table.entry(at: index) == VPCGeometry.unused
    if isNew { try bitmaps.fill(at: room, byteCount: geometry.bitmapSize, with: !isDifferencing) }
    if isDifferencing {
      try bitmaps.set(VPCGeometry.sectors(of: inBlock..<inBlock + allocation.length), at: room)
    }
    if isNew { try table.setEntry(at: index, to: UInt32(room / VPCGeometry.sectorSize)) }
  }

  mutating func abandon(_ allocation: Allocation) {
    let index = geometry.blockIndex(allocation.guestOffset)
    guard allocation.isNew, let entry = try? table.entry(at: index), entry == VPCGeometry.unused else {
      return
    }
    let inBlock = allocation.guestOffset - (index << geometry.blockBits)
    giveBack(allocation.hostOffset - inBlock - geometry.bitmapSize)
  }

  /// Blocks that are there are let go of whole. A differencing disk has no mark for zeros: they have to be stored.
  mutating func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    guard !isDifferencing else { return 0 }
    return try removeBlocks(from: offset, to: offset + limit, removingWhole: !keepingRoom)
  }

  /// A differencing disk keeps what it has: an older state of the parent must not come to light.
  mutating func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    guard !isDifferencing else { return limit }
    let done = try removeBlocks(from: offset, to: offset + limit, removingWhole: true)
    // A part of a block stays as it is.
    return done > 0 ? done : min(limit, geometry.blockSize - geometry.offsetInBlock(offset))
  }

  /// Goes through blocks up to the first that is there and stays: of which only a part is meant, or any, as
  /// `removingWhole` says. Gives the bytes it went through.
  private mutating func removeBlocks(from start: UInt64, to end: UInt64, removingWhole: Bool)
    throws(EngineError) -> UInt64
  {
    var position = start
    while position < end {
      let index = geometry.blockIndex(position)
      let blockStart = index << geometry.blockBits
      let blockEnd = min(blockStart + geometry.blockSize, virtualSize)
      if let room = try room(ofBlock: index) {
        guard removingWhole, position == blockStart, end >= blockEnd else { break }
        try remove(block: index, from: room)
      }
      position = min(blockEnd, end)
    }
    return position - start
  }
}

extension VPCLayer: Emptyable {
  func removeContent(progress: Progress) throws(EngineError) {
    try change { (state) throws(EngineError) in
      try state.removeAll(from: 0, progress)
      try state.trimEnd()
    }
  }
}
