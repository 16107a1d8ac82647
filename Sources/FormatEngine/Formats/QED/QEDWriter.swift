import Synchronization

/// Where written bytes go.
extension QEDLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try state.withLock { (state) throws(EngineError) in try state.allocate(at: offset, limit: limit) }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.link(allocation) }
  }

  func abandon(_ allocation: Allocation) {
    guard allocation.isNew else { return }
    state.withLock { state in
      state.allocator.takeBack(allocation.hostOffset, count: allocation.length / geometry.clusterSize)
    }
  }

  /// Clusters that are stored keep their place, as in QEMU: an image has no list of free ones. Their bytes become
  /// zeros there; all else gets the mark of zeros.
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    let found = try state.withLock { (state) throws(EngineError) in
      try state.markZeros(at: offset, limit: limit)
    }
    return try found.finish(in: guestFile, keepingRoom: keepingRoom)
  }

  /// Whole clusters that are stored read as zeros afterwards; nothing else has anything to let go of.
  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let start = offset.aligned(upTo: clusterSize)
    guard start == offset else { return min(limit, start - offset) }
    let found = try extent(at: offset, limit: limit)
    guard found.source == .stored, let hostOffset = found.hostOffset else { return found.length }
    let end = offset + found.length
    let wholeEnd = end == virtualSize ? end : end.aligned(downTo: clusterSize)
    guard wholeEnd > offset else { return found.length }
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      try state.requireNoMetadata(at: hostOffset, byteCount: wholeEnd - offset)
    }
    try guestFile.writeZeros(at: hostOffset, count: wholeEnd - offset, freeing: true)
    return found.length
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.close() }
  }
}

extension QEDState {
  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try prepareToWrite()
    let end = min(offset + limit, geometry.tableEnd(offset))
    let table = try tableOffset(geometry.l1Index(offset))
    if let table, case .cluster(let host) = try entry(at: offset, in: table) {
      let runEnd = try runEnd(of: .cluster(hostOffset: host), from: offset, to: end, in: table)
      let place = host + geometry.offsetInCluster(offset)
      try requireNoMetadata(at: place, byteCount: runEnd - offset)
      return Allocation(guestOffset: offset, length: runEnd - offset, hostOffset: place, isNew: false)
    }
    try markInUse()
    let start = offset.aligned(downTo: geometry.clusterSize)
    var wantedEnd = start + geometry.clusterSize
    while wantedEnd < end {
      // A table that is missing is made by `link`: it comes to lie behind its first clusters, as QEMU's does.
      if let table, case .cluster = try entry(at: wantedEnd, in: table) { break }
      wantedEnd += geometry.clusterSize
    }
    let room = try allocator.allocate(atMost: (wantedEnd - start) / geometry.clusterSize)
    let fileByteCount = try file.byteCount()
    return Allocation(
      guestOffset: start, length: room.count * geometry.clusterSize, hostOffset: room.hostOffset, isNew: true,
      readsAsZeros: room.isNew && room.hostOffset >= fileByteCount)
  }

  mutating func link(_ allocation: Allocation) throws(EngineError) {
    try end.extend(to: allocation.hostOffset + allocation.length)
    let table = try writableTable(for: allocation.guestOffset)
    for done in stride(from: 0, to: allocation.length, by: Int(geometry.clusterSize)) {
      try setEntry(at: allocation.guestOffset + done, in: table, toRaw: allocation.hostOffset + done)
    }
  }

  /// Gives whole clusters without room the mark of zeros.
  mutating func markZeros(at offset: UInt64, limit: UInt64) throws(EngineError) -> Zeroing {
    let found = try extent(at: offset, limit: limit)
    switch found.source {
    case .stored:
      guard let hostOffset = found.hostOffset else { return .done(0) }
      try prepareToWrite()
      try requireNoMetadata(at: hostOffset, byteCount: found.length)
      return .stored(hostOffset: hostOffset, count: found.length)
    case .zeros: return .done(found.length)
    case .below, .compressed: break
    }
    let size = geometry.clusterSize
    let end = min(offset + found.length, geometry.tableEnd(offset))
    let wholeEnd = end == virtualSize ? end.aligned(upTo: size) : end.aligned(downTo: size)
    guard offset.isAligned(to: size), wholeEnd > offset else {
      // A part of a cluster that nothing lies below reads as zeros already.
      guard hasNothingBelow else { return .done(0) }
      return .done(min(end, offset.aligned(downTo: size) + size) - offset)
    }
    try prepareToWrite()
    try markInUse()
    let table = try writableTable(for: offset)
    for position in stride(from: offset, to: wholeEnd, by: Int(size)) {
      try setEntry(at: position, in: table, toRaw: QEDEntry.zerosRaw)
    }
    return .done(min(wholeEnd, end) - offset)
  }
}
