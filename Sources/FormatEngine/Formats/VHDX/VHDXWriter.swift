import Synchronization

/// Where written bytes go: the VHDX half of the chain's write.
extension VHDXLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try change { (state) throws(EngineError) in try state.allocate(at: offset, limit: limit) }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try change { (state) throws(EngineError) in try state.link(allocation) }
  }

  func abandon(_ allocation: Allocation) {
    // What cannot be given back is leaked: the error that led here is the news.
    state.withLock { state in try? state.abandon(allocation) }
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    let plan = try change { (state) throws(EngineError) in
      try state.setZeros(at: offset, limit: limit, keepingRoom: keepingRoom)
    }
    return try plan.finish(in: guestFile, keepingRoom: keepingRoom)
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try change { (state) throws(EngineError) in try state.discard(at: offset, limit: limit) }
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.close() }
  }

  /// Runs a change of the image. The first one prepares the image for it.
  ///
  /// `mending`: the image may be damaged.
  func change<T>(
    mending: Bool = false, _ body: (inout sending VHDXState) throws(EngineError) -> sending T
  ) throws(EngineError) -> sending T {
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite(mending: mending)
      return try body(&state)
    }
  }
}

// MARK: Sessions

extension VHDXState {
  /// Pages that one change of a block touches at most: its entry, its bitmap's entry, and a bitmap of 64 KiB that
  /// begins inside a page.
  private static let pagesPerChange = 20

  /// Before each change: the image says that it is another one from now on ([MS-VHDX] 2.2.2), and there is room in the
  /// next log entry.
  mutating func prepareToWrite(mending: Bool) throws(EngineError) {
    if !isPreparedToWrite {
      guard image.header.logLength > 0 else {
        throw .unsupported("The image has no VHDX log, so that its BAT cannot be changed safely")
      }
      if !mending { try requireSoundBAT() }
      let old = headers.header
      let fileWriteGuid = try VHDXGuid.new(identities, for: "file write", after: old.fileWriteGuid)
      let dataWriteGuid = try planDataWriteGuid()
      try headers.update {
        $0.fileWriteGuid = fileWriteGuid
        $0.dataWriteGuid = dataWriteGuid
      }
      isPreparedToWrite = true
    }
    try makeRoomForChange()
  }

  /// The data write GUID that the image gets by its first change.
  mutating func planDataWriteGuid() throws(EngineError) -> VHDXGuid {
    if let next = nextDataWriteGuid { return next }
    let next = try VHDXGuid.new(identities, for: "data write", after: headers.header.dataWriteGuid)
    nextDataWriteGuid = next
    return next
  }

  /// Blocks that share their room, or that lie where the file will grow to, would be overwritten with each other.
  private mutating func requireSoundBAT() throws(EngineError) {
    var checker = try VHDXChecker(self)
    try checker.run(.none)
    guard checker.report.corruptions == 0 else {
      throw .corrupt(
        "The VHDX BAT is damaged, so that the image is not written to: \(checker.report.findings.first ?? "")"
      )
    }
    let end = checker.roomEnd.aligned(upTo: MiB)
    if end > allocator.end { allocator = BlockAllocator(unit: geometry.blockSize, end: end) }
  }

  mutating func makeRoomForChange() throws(EngineError) {
    if pages.changedCount > VHDXLogWriter.maximumPageCount - Self.pagesPerChange { try flush() }
  }

  /// All that was linked is on disk.
  mutating func flush() throws(EngineError) {
    try order.flush()
    pages.settle()
    for hostOffset in letGo { file.forget(at: hostOffset, count: geometry.blockSize) }
    letGo.removeAll()
    allocator.flushed()
  }

  /// As `flush`, and the log is empty.
  mutating func close() throws(EngineError) {
    try flush()
    try log.close()
  }
}

// MARK: Blocks

extension VHDXState {
  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let block = geometry.block(offset)
    let start = geometry.start(ofBlock: block)
    let entry = try entry(ofBlock: block)
    let found = try piece(at: offset, limit: limit)
    if found.source == .stored, let host = found.hostOffset {
      return Allocation(guestOffset: offset, length: found.length, hostOffset: host, isNew: false)
    }
    // Sectors that the block has room for, and nothing in it yet.
    if entry.state == .partiallyPresent {
      let sectors = sectorRange(offset..<offset + found.length)
      let host = try hostOffset(ofRoom: entry, for: block) + (sectors.lowerBound - start)
      return Allocation(
        guestOffset: sectors.lowerBound, length: UInt64(sectors.count), hostOffset: host, isNew: true)
    }
    let hostOffset = try takeBlock()
    let end = min(start + geometry.byteCount(ofBlock: block), offset + limit)
    let coversAll = offset == start && end == start + geometry.byteCount(ofBlock: block)
    if geometry.hasParent && entry.state == .notPresent && !coversAll {
      let sectors = sectorRange(offset..<end)
      return Allocation(
        guestOffset: sectors.lowerBound, length: UInt64(sectors.count),
        hostOffset: hostOffset + (sectors.lowerBound - start), isNew: true, readsAsZeros: true)
    }
    return Allocation(
      guestOffset: start, length: geometry.blockSize, hostOffset: hostOffset, isNew: true, readsAsZeros: true)
  }

  /// Whole sectors around guest bytes.
  private func sectorRange(_ range: Range<UInt64>) -> Range<UInt64> {
    range.lowerBound.aligned(
      downTo: geometry.sectorSize)..<range.upperBound.aligned(upTo: geometry.sectorSize)
  }

  /// The place of a partially present block, which must be one to write to.
  private func hostOffset(ofRoom entry: VHDXEntry, for block: UInt64) throws(EngineError) -> UInt64 {
    guard entry.hostOffset <= maximumFileOffset,
      entry.hostOffset + geometry.byteCount(ofBlock: block) <= fileEnd,
      !image.isMetadata(entry.hostOffset..<entry.hostOffset + geometry.byteCount(ofBlock: block))
    else {
      throw .corrupt("A VHDX block does not lie in the file", at: geometry.start(ofBlock: block))
    }
    return entry.hostOffset
  }

  /// Room for a block, which reads as zeros and lies in the file whole.
  mutating func takeBlock() throws(EngineError) -> UInt64 {
    let room = try allocator.allocate(atMost: 1)
    do throws(EngineError) {
      try clear(room.hostOffset, count: geometry.blockSize)
    } catch {
      allocator.takeBack(room.hostOffset, count: 1)
      throw error
    }
    return room.hostOffset
  }

  /// Makes zeros of room that may have been in use before; past the end the file's length does it.
  private mutating func clear(_ hostOffset: UInt64, count: UInt64) throws(EngineError) {
    let end = hostOffset + count
    if hostOffset < fileEnd {
      try file.writeZeros(at: hostOffset, count: min(end, fileEnd) - hostOffset, freeing: true)
    }
    if end > fileEnd {
      try file.resize(to: end)
      fileEnd = end
    }
  }

  mutating func link(_ allocation: Allocation) throws(EngineError) {
    let block = geometry.block(allocation.guestOffset)
    let start = geometry.start(ofBlock: block)
    let hostOffset = allocation.hostOffset - (allocation.guestOffset - start)
    let old = try entry(ofBlock: block)
    guard allocation.guestOffset > start || allocation.length < geometry.byteCount(ofBlock: block) else {
      return try setEntry(ofBlock: block, to: VHDXEntry(.fullyPresent, hostOffset: hostOffset))
    }
    let bitmap = try writableBitmap(ofBlock: block)
    let (first, count) = (geometry.bit(start), geometry.blockSize >> geometry.sectorBits)
    if old.state != .partiallyPresent {
      try pages.setBits(ofBitmapAt: bitmap, from: first, count: count, to: false)
    }
    let written = min(allocation.guestEnd, start + geometry.blockSize) - allocation.guestOffset
    let sectors = written.dividedRoundingUp(by: geometry.sectorSize)
    let firstWritten = geometry.bit(allocation.guestOffset)
    try pages.setBits(ofBitmapAt: bitmap, from: firstWritten, count: sectors, to: true)
    let needed = geometry.byteCount(ofBlock: block).dividedRoundingUp(by: geometry.sectorSize)
    // What follows first: a block that fills up from its start is soon known not to be full.
    var isFull = try areSet(firstWritten + sectors, before: first + needed, inBitmapAt: bitmap)
    if isFull { isFull = try areSet(first, before: firstWritten, inBitmapAt: bitmap) }
    let new = VHDXEntry(isFull ? .fullyPresent : .partiallyPresent, hostOffset: hostOffset)
    if new != old { try setEntry(ofBlock: block, to: new) }
  }

  /// Whether all bits from one on are set.
  private func areSet(_ first: UInt64, before end: UInt64, inBitmapAt bitmap: UInt64) throws(EngineError)
    -> Bool
  {
    guard first < end else { return true }
    let run = try pages.run(ofBitmapAt: bitmap, from: first, limit: end - first)
    return run.isSet && run.count == end - first
  }

  /// The sector bitmap of a block's chunk, made where there is none.
  private mutating func writableBitmap(ofBlock block: UInt64) throws(EngineError) -> UInt64 {
    if let present = try bitmapOffset(ofBlock: block) { return present }
    let hostOffset = allocator.reserveEnd(MiB)
    try clear(hostOffset, count: MiB)
    pages.forget(at: hostOffset, count: MiB)
    let index = geometry.bitmapEntryIndex(ofChunk: geometry.chunk(ofBlock: block))
    try pages.setNumber(
      at: entryOffset(index), to: VHDXEntry(.fullyPresent, hostOffset: hostOffset).raw)
    return hostOffset
  }

  mutating func abandon(_ allocation: Allocation) throws(EngineError) {
    let block = geometry.block(allocation.guestOffset)
    guard try entry(ofBlock: block).state != .partiallyPresent else { return }
    allocator.takeBack(allocation.hostOffset - geometry.offsetInBlock(allocation.guestOffset), count: 1)
  }

  // MARK: Zeros

  mutating func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError)
    -> Zeroing
  {
    let piece = try piece(at: offset, limit: limit)
    if piece.source == .zeros || piece.source == .below && !geometry.hasParent {
      return .done(try extent(at: offset, limit: limit).length)
    }
    let block = geometry.block(offset)
    let length = geometry.byteCount(ofBlock: block)
    let isWhole = geometry.offsetInBlock(offset) == 0 && limit >= length
    let keeps = keepingRoom || keepsBlocks
    let isStored = try entry(ofBlock: block).isStored
    if isWhole && !(keeps && isStored) {
      try letGo(ofBlock: block, as: .zero)
      return .done(length)
    }
    guard piece.source == .stored, let hostOffset = piece.hostOffset else { return .done(0) }
    return .stored(hostOffset: hostOffset, count: piece.length)
  }

  /// A fixed image's blocks stay where they are.
  private var keepsBlocks: Bool { image.metadata.leavesBlocksAllocated && !geometry.hasParent }

  mutating func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let block = geometry.block(offset)
    let length = geometry.byteCount(ofBlock: block)
    let inBlock = geometry.offsetInBlock(offset)
    guard inBlock == 0, limit >= length, !keepsBlocks else { return min(limit, length - inBlock) }
    if try entry(ofBlock: block).isStored {
      // What the parent has there must not come back.
      try letGo(ofBlock: block, as: geometry.hasParent ? .zero : .unmapped)
    }
    return length
  }

  /// The block reads as zeros; its room is free once that is on disk.
  mutating func letGo(ofBlock block: UInt64, as state: VHDXEntry.State) throws(EngineError) {
    let old = try entry(ofBlock: block)
    let new = VHDXEntry(state)
    guard new != old else { return }
    try setEntry(ofBlock: block, to: new)
    // The last block may have less room than the others: it is not given to one of them.
    guard old.isStored, old.hostOffset + geometry.blockSize <= fileEnd else { return }
    letGo.append(old.hostOffset)
    allocator.release(old.hostOffset)
  }
}
