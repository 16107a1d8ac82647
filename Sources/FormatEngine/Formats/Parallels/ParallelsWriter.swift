import Synchronization

/// Where written bytes go.
extension ParallelsLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      return try state.allocate(at: offset, limit: limit)
    }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.link(allocation) }
  }

  func abandon(_ allocation: Allocation) {
    state.withLock { $0.abandon(allocation) }
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    let found = try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      return try state.extent(at: offset, limit: limit)
    }
    guard let host = found.hostOffset else { return isOverlay ? 0 : found.length }
    if !isOverlay && !keepingRoom {
      let freed = try free(at: offset, limit: limit)
      if freed > 0 { return freed }
    }
    // A part of a cluster, or one that is to stay: the zeros are stored. What comes after it can be freed.
    let length =
      isOverlay || keepingRoom ? found.length : min(found.length, clusterSize - offset % clusterSize)
    try requireData(host, length)
    try file.writeZeros(at: host, count: length, freeing: !keepingRoom)
    return length
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    // What lies below would show: there is no mark for zeros.
    if isOverlay { return limit }
    let found = try state.withLock { (state) throws(EngineError) in
      try state.prepareToWrite()
      return try state.extent(at: offset, limit: limit)
    }
    guard found.hostOffset != nil else { return found.length }
    let freed = try free(at: offset, limit: limit)
    return freed > 0 ? freed : min(found.length, clusterSize - offset % clusterSize)
  }

  /// Lets go of whole clusters from `offset` on that are stored; 0 where the first is not one of these.
  private func free(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try state.withLock { (state) throws(EngineError) in
      try state.free(at: offset, end: offset + limit, diskEnd: virtualSize)
    }
  }

  private func requireData(_ hostOffset: UInt64, _ byteCount: UInt64) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.requireData(hostOffset, byteCount) }
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.flush() }
  }

  func close() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in try state.close() }
  }
}

extension ParallelsState {
  mutating func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let size = geometry.clusterSize
    let found = try extent(at: offset, limit: limit)
    if let host = found.hostOffset {
      try requireData(host, found.length)
      return Allocation(guestOffset: offset, length: found.length, hostOffset: host, isNew: false)
    }
    let first = offset / size
    let wanted = min((offset + found.length).dividedRoundingUp(by: size), geometry.entryCount)
    guard first < wanted else {
      throw .corrupt("The BAT of \(geometry.entryCount) entries is too short for the disk", at: offset)
    }
    let fileEnd = try file.byteCount()
    let clusters = try take(atMost: wanted - first)
    let host = used?.hostOffset(of: clusters.lowerBound) ?? 0
    let byteCount = UInt64(clusters.count) * size
    do throws(EngineError) {
      // Whole clusters, though zeros at the end of one are not written: entries must not point past the end.
      if host + byteCount > fileEnd { try file.resize(to: host + byteCount) }
    } catch {
      used?.free(clusters)
      throw error
    }
    return Allocation(
      guestOffset: first * size, length: byteCount, hostOffset: host, isNew: true,
      readsAsZeros: host >= fileEnd)
  }

  /// Free clusters, at most `count` in a row.
  private mutating func take(atMost count: UInt64) throws(EngineError) -> Range<UInt64> {
    guard var used else { throw EngineError(.readOnly, "The image is opened read-only") }
    self.used = nil
    defer { self.used = used }
    return try used.take(atMost: count)
  }

  /// Guest bytes must not go where an entry says that they are, if that is before the data area.
  func requireData(_ hostOffset: UInt64, _ byteCount: UInt64) throws(EngineError) {
    guard let used, hostOffset >= used.dataOffset, hostOffset + byteCount <= geometry.hostLimit else {
      throw .corrupt("A cluster lies outside of the data area", at: hostOffset)
    }
  }

  mutating func link(_ allocation: Allocation) throws(EngineError) {
    let size = geometry.clusterSize
    let first = allocation.guestOffset / size
    for number in 0..<allocation.length / size {
      try bat.setEntry(
        at: first + number, to: geometry.entry(for: allocation.hostOffset + number * size))
    }
  }

  mutating func abandon(_ allocation: Allocation) {
    guard allocation.isNew,
      let clusters = used?.clusters(allocation.hostOffset, allocation.length)
    else { return }
    used?.free(clusters)
  }

  /// Lets go of whole clusters that are stored, from the one at `offset` on. The last one of a disk may be cut
  /// short.
  mutating func free(at offset: UInt64, end: UInt64, diskEnd: UInt64) throws(EngineError) -> UInt64 {
    let size = geometry.clusterSize
    guard offset % size == 0 else { return 0 }
    var position = offset
    while position < end, min(position + size, diskEnd) <= end,
      let host = try hostOffset(of: position / size)
    {
      try requireData(host, size)
      try bat.setEntry(at: position / size, to: 0)
      if let clusters = used?.clusters(host, size) { release(clusters) }
      position += size
    }
    return min(position, end) - offset
  }

  private mutating func release(_ clusters: Range<UInt64>) {
    if let last = released.last, last.upperBound == clusters.lowerBound {
      released[released.count - 1] = last.lowerBound..<clusters.upperBound
    } else {
      released.append(clusters)
    }
  }
}
