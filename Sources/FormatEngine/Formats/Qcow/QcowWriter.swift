import Synchronization

/// Where written bytes go.
extension QcowLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    // Without the key nobody could read what is written.
    guard !isEncrypted || cipher != nil else { throw .missingKey }
    return try state.withLock { (state) throws(EngineError) in try state.allocate(at: offset, limit: limit) }
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

  /// There is no mark for zeros. Clusters that are stored as they are become zeros in their place; others are
  /// forgotten, where nothing lies below them.
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    let found = try state.withLock { (state) throws(EngineError) in
      try state.forget(at: offset, limit: limit)
    }
    return try found.finish(in: guestFile, keepingRoom: keepingRoom)
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let start = offset.aligned(upTo: clusterSize)
    guard start == offset else { return min(limit, start - offset) }
    let end = offset + limit
    let wholeEnd = end == virtualSize ? end : end.aligned(downTo: clusterSize)
    guard wholeEnd > offset else { return limit }
    let done = try setZeros(at: offset, limit: wholeEnd - offset, keepingRoom: false)
    // What lies below would show through, or encrypted zeros would have to be written: it stays.
    return done > 0 ? done : min(limit, clusterSize)
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.close() }
  }
}

extension QcowState {
  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let end = min(offset + limit, geometry.tableEnd(offset))
    let table = try writableTable(for: offset)
    if case .cluster(let host) = try entry(at: offset, in: table) {
      let runEnd = try runEnd(of: .cluster(hostOffset: host), from: offset, to: end, in: table)
      let place = host + geometry.offsetInCluster(offset)
      try requireNoMetadata(at: place, byteCount: runEnd - offset)
      return Allocation(guestOffset: offset, length: runEnd - offset, hostOffset: place, isNew: false)
    }
    let start = offset.aligned(downTo: geometry.clusterSize)
    var wantedEnd = start + geometry.clusterSize
    while wantedEnd < end {
      if case .cluster = try entry(at: wantedEnd, in: table) { break }
      wantedEnd += geometry.clusterSize
    }
    hasAllocated = true
    alignEnd()
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
      // What a packed cluster took stays unused: its neighbours share its sectors.
      try setEntry(at: allocation.guestOffset + done, in: table, toRaw: allocation.hostOffset + done)
    }
  }

  /// Takes clusters out of the tables where zeros are read then.
  mutating func forget(at offset: UInt64, limit: UInt64) throws(EngineError) -> Zeroing {
    let found = try extent(at: offset, limit: limit)
    switch found.source {
    case .below, .zeros: return .done(hasNothingBelow ? found.length : 0)
    case .stored where !found.isEncrypted:
      guard let hostOffset = found.hostOffset else { return .done(0) }
      try requireNoMetadata(at: hostOffset, byteCount: found.length)
      return .stored(hostOffset: hostOffset, count: found.length)
    case .stored, .compressed: break
    }
    let size = geometry.clusterSize
    let end = min(offset + found.length, geometry.tableEnd(offset))
    let wholeEnd = end == virtualSize ? end.aligned(upTo: size) : end.aligned(downTo: size)
    guard hasNothingBelow, offset.isAligned(to: size), wholeEnd > offset else { return .done(0) }
    let table = try writableTable(for: offset)
    for position in stride(from: offset, to: wholeEnd, by: Int(size)) {
      try replaceEntry(at: position, in: table, withRaw: 0)
    }
    return .done(min(wholeEnd, end) - offset)
  }
}
