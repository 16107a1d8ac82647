import Synchronization

extension QcowLayer: Resizable {
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard preallocation == .off else {
      throw .unsupported("Unsupported preallocation mode '\(preallocation.rawValue)'")
    }
    guard newSize.isAligned(to: 512) else { throw .invalid("The new size must be a multiple of 512") }
    guard newSize > 0 else { throw .invalid("Image size is too small, cannot be zero length") }
    guard newSize <= maximumFileOffset - (1 << geometry.coverageBits),
      geometry.l1Count(forVirtualSize: newSize) <= QcowHeader.maximumL1Count
    else { throw EngineError(.tooLarge, "The image size is too large for file format 'qcow'") }
    let oldSize = virtualSize
    if newSize > oldSize {
      try grow(from: oldSize, to: newSize, clearing)
    } else if newSize < oldSize {
      try shrink(to: newSize)
    }
  }

  /// The new size is recorded last: what it brings into the disk reads as zeros by then.
  private func grow(from oldSize: UInt64, to newSize: UInt64, _ clearing: () throws(EngineError) -> Void)
    throws(EngineError)
  {
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      let count = geometry.l1Count(forVirtualSize: newSize)
      if count > state.prologue.header.l1Count { try state.moveL1(count: count) }
      try state.startAfresh(virtualSize: newSize)
    }
    size.store(newSize, ordering: .relaxed)
    do throws(EngineError) {
      try clearing()
      try state.withLock { (state) throws(EngineError) in
        try state.flush()
        try state.prologue.header.write(to: file)
      }
    } catch {
      size.store(oldSize, ordering: .relaxed)
      try state.withLock { (state) throws(EngineError) in try state.startAfresh() }
      throw error
    }
  }

  /// The new size is recorded first; what lies past it is no longer read, and then goes.
  private func shrink(to newSize: UInt64) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      var header = state.prologue.header
      header.virtualSize = newSize
      try header.write(to: file)
      size.store(newSize, ordering: .relaxed)
      try state.startAfresh()
      try state.removeEntries(from: newSize.aligned(upTo: clusterSize))
      try state.flush()
    }
    _ = try repair(.leaks, progress: .none)
  }
}

extension QcowLayer: BackingChanging {
  var storedUnit: UInt64 { clusterSize }
  var marksZeros: Bool { false }

  /// The new name goes to the end of the file, then the header points to it. A format is not recorded.
  func setBacking(_ backing: BackingReference?) throws(EngineError) {
    let name = (backing?.name ?? "").hostBytes
    guard name.count <= QcowHeader.maximumNameLength else { throw .invalid("Backing file name too long") }
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      var header = state.prologue.header
      header.backingNameOffset = 0
      header.backingNameLength = UInt32(name.count)
      if !name.isEmpty {
        header.backingNameOffset = try state.reserve(UInt64(name.count), isAligned: true)
        try file.write(bytes: name, at: header.backingNameOffset)
        try file.flush()
      }
      try header.write(to: file)
      try state.startAfresh()
    }
  }
}

extension QcowLayer: Emptyable {
  /// Empties the L1 table, and cuts off what lies behind it and the name of the backing file.
  func removeContent(progress: Progress) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      let header = state.prologue.header
      try file.writeZeros(at: header.l1Offset, count: header.l1ByteCount, freeing: true)
      try file.flush()
      let end = header.fixedRanges.reduce(0) { max($0, $1.upperBound) }
      if try file.byteCount() > end { try file.resize(to: end) }
      try file.flush()
      try state.startAfresh()
    }
  }
}

extension QcowState {
  /// As when the image was opened: the tables were changed in the file itself. `virtualSize`: of a disk that is
  /// growing; its L1 table must have room for it.
  mutating func startAfresh(virtualSize: UInt64? = nil) throws(EngineError) {
    var fresh = try QcowPrologue.read(from: file)
    if let virtualSize { fresh.header.virtualSize = virtualSize }
    self = try QcowState(fresh, file: file, isOverlay: isOverlay)
  }

  /// Copies the L1 table to the end of the file, with room for `count` entries. All is on disk before the header
  /// points there.
  fileprivate mutating func moveL1(count: UInt64) throws(EngineError) {
    var header = prologue.header
    let target = try reserve(count * 8, isAligned: true)
    try end.makeZeros(from: target, to: target + count * 8)
    var done: UInt64 = 0
    while done < header.l1ByteCount {
      let part = min(64 * KiB, header.l1ByteCount - done)
      try file.write(bytes: file.bytes(at: header.l1Offset + done, count: Int(part)), at: target + done)
      done += part
    }
    try file.flush()
    header.l1Offset = target
    try header.write(to: file)
  }

  /// Takes the entries from guest offset `start` on out of its L2 table.
  fileprivate mutating func removeEntries(from start: UInt64) throws(EngineError) {
    guard start < prologue.header.l1Count << geometry.coverageBits,
      let table = try tableOffset(geometry.l1Index(start))
    else { return }
    for position in stride(from: start, to: geometry.tableEnd(start), by: Int(geometry.clusterSize)) {
      try setEntry(at: position, in: table, toRaw: 0)
    }
  }
}
