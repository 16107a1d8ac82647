import Synchronization

extension VHDXLayer: Resizable {
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard preallocation == .off else {
      throw .unsupported("Preallocation mode '\(preallocation.rawValue)' is not supported for vhdx")
    }
    guard newSize <= VHDXMetadata.maximumVirtualSize else {
      throw EngineError(.tooLarge, "Image size too large; max of 64TB")
    }
    let old = image.metadata
    guard newSize.isAligned(to: old.sectorSize) else {
      throw .invalid("The new size must be a multiple of \(old.sectorSize)")
    }
    guard newSize != old.virtualSize else { return }
    if newSize > old.virtualSize {
      try grow(from: old.virtualSize, to: newSize, clearing: clearing)
    } else {
      try shrink(from: old.virtualSize, to: newSize, progress)
    }
  }

  /// The new size is recorded last: what it brings into the disk reads as zeros by then. Size and place of the BAT
  /// change with one entry of the log.
  private func grow(from oldSize: UInt64, to newSize: UInt64, clearing: () throws(EngineError) -> Void)
    throws(EngineError)
  {
    try change { (state) throws(EngineError) in
      try state.flush()
      try state.completeLastBlock()
      try state.makeRoomInBAT(forSize: newSize)
      state.image.metadata.virtualSize = newSize
    }
    size.store(newSize, ordering: .relaxed)
    do throws(EngineError) {
      try clearing()
      try change { (state) throws(EngineError) in
        if state.image.metadata.leavesBlocksAllocated, state.image.metadata.parent == nil {
          try state.setAsideBlocks(from: oldSize)
        }
        try state.flush()
        try state.recordVirtualSize()
        try state.flush()
      }
    } catch {
      state.withLock { $0.image.metadata.virtualSize = oldSize }
      size.store(oldSize, ordering: .relaxed)
      throw error
    }
  }

  /// The new size is recorded first. What lies past it is no longer read, so it can go step by step.
  private func shrink(from oldSize: UInt64, to newSize: UInt64, _ progress: Progress) throws(EngineError) {
    try change { (state) throws(EngineError) in
      try state.flush()
      state.image.metadata.virtualSize = newSize
      do throws(EngineError) {
        try state.recordVirtualSize()
        try state.flush()
      } catch {
        state.image.metadata.virtualSize = oldSize
        throw error
      }
    }
    size.store(newSize, ordering: .relaxed)
    let geometry = image.metadata.geometry
    let end = oldSize.dividedRoundingUp(by: geometry.blockSize)
    for block in geometry.blockCount..<end {
      if block % 4096 == 0 { try progress.step(block - geometry.blockCount, of: end - geometry.blockCount) }
      try change { (state) throws(EngineError) in try state.removeEntry(ofBlock: block) }
    }
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      try state.cutOffFreeEnd()
    }
  }
}

extension VHDXLayer {
  var image: VHDXImage { state.withLock { $0.image } }
}

extension VHDXState {
  /// The virtual size as it is in memory, in the next log entry.
  func recordVirtualSize() throws(EngineError) {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: image.metadata.virtualSize)
    try pages.write(bytes, at: image.metadataRegion.lowerBound + image.metadata.virtualSizeOffset)
  }

  /// The file may end inside of the disk's last block, behind what a guest has of it: it is to have all of it soon.
  mutating func completeLastBlock() throws(EngineError) {
    guard geometry.blockCount > 0 else { return }
    let last = try entry(ofBlock: geometry.blockCount - 1)
    let end = last.hostOffset + geometry.blockSize
    guard last.isStored, end > fileEnd else { return }
    try file.resize(to: end)
    fileEnd = end
  }

  /// A BAT that has empty entries for all that a disk of `size` needs beyond what there is: the old one where it has room,
  /// else a copy at the end of the file, which the next log entry switches to.
  mutating func makeRoomInBAT(forSize size: UInt64) throws(EngineError) {
    try emptyEntriesPastEnd()
    let old = geometry
    var new = image.metadata
    new.virtualSize = size
    let (used, needed) = (old.entryCount * 8, new.geometry.entryCount * 8)
    if needed <= UInt64(image.bat.count) {
      // What stands there meant nothing until now. The log's entries speak of it as it was.
      try log.close()
      try file.writeZeros(
        at: image.bat.lowerBound + used, count: needed - used, freeing: false)
      pages.forget(
        at: (image.bat.lowerBound + used).aligned(downTo: UInt64(VHDXPages.pageByteCount)),
        count: needed - used + UInt64(VHDXPages.pageByteCount))
      return try file.flush()
    }
    let length = needed.aligned(upTo: MiB)
    guard length <= UInt64(UInt32.max) else { throw EngineError(.tooLarge, "The VHDX BAT would be too long") }
    let place = allocator.reserveEnd(length)
    try file.writeZeros(at: place, count: length, freeing: true)
    pages.forget(at: place, count: length)
    fileEnd = max(fileEnd, place + length)
    var position: UInt64 = 0
    while position < used {
      let count = min(used - position, MiB)
      try file.write(
        bytes: try file.bytes(at: image.bat.lowerBound + position, count: Int(count)), at: place + position)
      position += count
    }
    try file.flush()
    guard let index = image.regions.entries.firstIndex(where: { $0.guid == VHDXRegions.bat }) else { return }
    image.regions.entries[index].hostOffset = place
    image.regions.entries[index].length = UInt32(length)
    image.bat = place..<place + length
    image.noteRegions()
    // The rest of the tables stays as it is: zeros.
    let table = Array(image.regions.serialised().prefix(16 + 32 * image.regions.entries.count))
    for hostOffset in VHDXRegions.hostOffsets { try pages.write(table, at: hostOffset) }
  }

  /// A differencing disk has entries for whole chunks. Those past its end mean nothing, and what a shrink that was
  /// interrupted left there may lead to room that is another block's by now: so it goes, and the room stays. On disk
  /// when it returns.
  private mutating func emptyEntriesPastEnd() throws(EngineError) {
    guard geometry.hasParent else { return }
    for block in geometry.blockCount..<geometry.chunkCount << geometry.chunkBits
    where try entry(ofBlock: block) != VHDXEntry(.notPresent) {
      try makeRoomForChange()
      try setEntry(ofBlock: block, to: VHDXEntry(.notPresent))
    }
    try flush()
  }

  /// Gives blocks of a fixed image their room.
  mutating func setAsideBlocks(from oldSize: UInt64) throws(EngineError) {
    let first = oldSize.dividedRoundingUp(by: geometry.blockSize)
    for block in first..<max(geometry.blockCount, first) where try !entry(ofBlock: block).isStored {
      try makeRoomForChange()
      let room = try takeBlock()
      try setEntry(ofBlock: block, to: VHDXEntry(.fullyPresent, hostOffset: room))
    }
  }

  /// Forgets a block past the end of the disk, and the bitmap of a chunk that begins there.
  mutating func removeEntry(ofBlock block: UInt64) throws(EngineError) {
    try letGo(ofBlock: block, as: .notPresent)
    guard geometry.hasParent else { return }
    let chunk = geometry.chunk(ofBlock: block)
    let place = entryOffset(geometry.bitmapEntryIndex(ofChunk: chunk))
    if chunk >= geometry.chunkCount, try pages.number(at: place) != 0 {
      try pages.setNumber(at: place, to: 0)
    }
  }

  /// Makes the file end behind the last thing in use.
  mutating func cutOffFreeEnd() throws(EngineError) {
    var end = max(
      MiB, image.header.logRange.upperBound, image.regions.entries.map(\.range.upperBound).max() ?? 0)
    for block in 0..<geometry.blockCount {
      let entry = try entry(ofBlock: block)
      if entry.isStored, entry.hostOffset <= maximumFileOffset {
        end = max(end, entry.hostOffset + geometry.blockSize)
      }
    }
    for chunk in 0..<(geometry.hasParent ? geometry.chunkCount : 0) {
      if let bitmap = try bitmapOffset(ofBlock: chunk << geometry.chunkBits) { end = max(end, bitmap + MiB) }
    }
    guard end < fileEnd else { return }
    // The log's entries speak of the longer file.
    try log.close()
    try file.resize(to: end)
    try file.flush()
    fileEnd = end
    allocator = BlockAllocator(unit: geometry.blockSize, end: end)
  }
}
