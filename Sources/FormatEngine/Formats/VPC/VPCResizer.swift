import Synchronization

extension VPCLayer: Resizable {
  /// Grows the table first, in place or at a new one; the size is recorded last. A disk that shrinks has its
  /// size recorded first.
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard preallocation == .off else { throw VPCResizeLimits.unsupported(preallocation) }
    try VPCResizeLimits.check(newSize)
    let oldSize = virtualSize
    guard newSize != oldSize else { return }
    if newSize > oldSize {
      try change { (state) throws(EngineError) in
        try state.flush()
        try state.growTable(for: newSize)
      }
      size.store(newSize, ordering: .relaxed)
      do throws(EngineError) {
        try clearing()
        try change { (state) throws(EngineError) in
          try state.flush()
          try state.recordSize(newSize)
        }
      } catch {
        size.store(oldSize, ordering: .relaxed)
        state.withLock { $0.virtualSize = oldSize }
        throw error
      }
    } else {
      try change { (state) throws(EngineError) in
        try state.flush()
        try state.recordSize(newSize)
        size.store(newSize, ordering: .relaxed)
        try state.removeBlocks(from: newSize, progress)
      }
    }
  }
}

/// What sizes a disk may get.
enum VPCResizeLimits {
  static func unsupported(_ preallocation: Preallocation) -> EngineError {
    .unsupported("Unsupported preallocation mode: \(preallocation.rawValue)")
  }

  static func check(_ byteCount: UInt64) throws(EngineError) {
    guard byteCount.isAligned(to: VPCGeometry.sectorSize) else {
      throw .invalid("The new size must be a multiple of 512")
    }
    guard byteCount / VPCGeometry.sectorSize <= VPCFooter.maximumSectorCount else {
      throw EngineError(.tooLarge, "The image size is too large for file format '\(VPCFormat.name)'")
    }
  }
}

extension VPCState {
  /// Makes room in the table for a disk of `newSize`, with the new entries unused. On disk when it returns.
  fileprivate mutating func growTable(for newSize: UInt64) throws(EngineError) {
    let grown = VPCGeometry(blockSize: geometry.blockSize, virtualSize: newSize)
    guard grown.blockCount <= VPCDynamicHeader.maximumEntryCount else {
      throw EngineError(.tooLarge, "A disk with blocks of \(geometry.blockSize) bytes cannot become so large")
    }
    let oldEnd = header.tableOffset + geometry.blockCount * 4
    let newEnd = header.tableOffset + VPCNewDisk.tableByteCount(entries: grown.blockCount)
    var newHeader = header
    newHeader.entryCount = max(header.entryCount, UInt32(grown.blockCount))
    if try hasRoom(for: newEnd) {
      try VPCTableFill.write(to: file, from: oldEnd, to: newEnd)
    } else {
      newHeader.tableOffset = try moveTable(entries: grown.blockCount)
      newHeader.entryCount = UInt32(grown.blockCount)
    }
    try file.flush()
    if newHeader != header {
      do throws(EngineError) {
        try file.write(bytes: newHeader.bytes, at: footer.headerOffset)
        try file.flush()
      } catch {
        // What is written from here on goes by the old table.
        try? file.write(bytes: header.bytes, at: footer.headerOffset)
        throw error
      }
    }
    header = newHeader
    try adopt(grown, virtualSize: newSize)
  }

  /// Whether nothing stands between the table's end and `newEnd`.
  private func hasRoom(for newEnd: UInt64) throws(EngineError) -> Bool {
    let addition = header.tableOffset + VPCNewDisk.tableByteCount(entries: geometry.blockCount)..<newEnd
    guard !addition.isEmpty else { return true }
    // Behind the last block there is the footer.
    guard metadata.overlapping(addition) == nil, newEnd <= contentEnd,
      session?.rooms.keepsRoom(in: addition) != true
    else { return false }
    for index in 0..<geometry.blockCount {
      guard let room = try room(ofBlock: index) else { continue }
      if addition.overlaps(room..<room + geometry.roomSize) { return false }
    }
    return true
  }

  /// Copies the table to the end of the file, with room for `count` entries; gives where it is.
  private mutating func moveTable(entries count: UInt64) throws(EngineError) -> UInt64 {
    let byteCount = VPCNewDisk.tableByteCount(entries: count)
    guard let start = session?.rooms.reserveEnd(byteCount) else { throw VPCSession.missing }
    noteEnd()
    var done: UInt64 = 0
    let old = geometry.blockCount * 4
    while done < old {
      let piece = Int(min(old - done, MiB))
      try file.write(bytes: try file.bytes(at: header.tableOffset + done, count: piece), at: start + done)
      done += UInt64(piece)
    }
    try VPCTableFill.write(to: file, from: start + old, to: start + byteCount)
    // The footer follows the new table.
    try fileEnd.writeBack()
    return start
  }

  /// From here on the disk has another size and perhaps its table another place.
  private mutating func adopt(_ geometry: VPCGeometry, virtualSize: UInt64) throws(EngineError) {
    self.geometry = geometry
    self.virtualSize = virtualSize
    metadata = try VPCMetadataMap(footer, header, geometry, fileByteCount: knownEnd)
    order.replaceAll(with: fileEnd)
    table = Self.table(header, geometry, file, order)
  }

  /// Both footers say how large the disk is: the one at the start first, by which QEMU goes. On disk when it returns.
  fileprivate mutating func recordSize(_ byteCount: UInt64) throws(EngineError) {
    let (old, oldSize) = (footer, virtualSize)
    do throws(EngineError) {
      footer.setVirtualSize(byteCount)
      virtualSize = byteCount
      try file.write(bytes: footer.bytes, at: 0)
      try file.flush()
      fileEnd.move(footer, to: session?.rooms.end ?? contentEnd)
      try flush()
    } catch {
      (footer, virtualSize) = (old, oldSize)
      fileEnd.move(footer, to: session?.rooms.end ?? contentEnd)
      try? file.write(bytes: footer.bytes, at: 0)
      throw error
    }
  }

  /// Lets go of blocks that are past the end of the disk, whose size is recorded. On disk when it returns.
  fileprivate mutating func removeBlocks(from newSize: UInt64, _ progress: Progress) throws(EngineError) {
    try removeAll(from: newSize.dividedRoundingUp(by: geometry.blockSize), progress)
    let shrunk = VPCGeometry(blockSize: geometry.blockSize, virtualSize: newSize)
    // Other programs read as many entries as the header says: the table's end is about to become others' room.
    header.entryCount = min(header.entryCount, UInt32(shrunk.blockCount))
    try file.write(bytes: header.bytes, at: footer.headerOffset)
    try file.flush()
    try adopt(shrunk, virtualSize: newSize)
    try trimEnd()
  }
}
