extension ImageChain {
  /// Which layer answers for the bytes from `offset` on, and how, as the tables have it: the base of
  /// every read. `limit` must end inside the disk and not be 0. A long run may come in pieces.
  public func locate(at offset: UInt64, limit: UInt64) throws(EngineError) -> LocatedExtent {
    var limit = limit
    var depth = 0
    while true {
      let extent = try layers[depth].extent(at: offset, limit: min(limit, longestRuns[depth]))
      if extent.source != .below { return LocatedExtent(depth: depth, extent: extent) }
      limit = extent.length
      // A layer below that is shorter than this one reads as zeros past its end.
      let sizeBelow = depth + 1 < layers.count ? layers[depth + 1].virtualSize : 0
      guard offset < sizeBelow else { return LocatedExtent(depth: depth, extent: extent) }
      depth += 1
      limit = min(limit, sizeBelow - offset)
    }
  }

  /// As `locate`, and stored bytes are also looked up in their file where that may have holes: the base
  /// of map, convert, compare and SEEK_HOLE.
  public func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> LocatedExtent {
    guard isChanging else { return try extentUnlocked(at: offset, limit: limit) }
    // One byte is enough to hold the disk's size.
    return try whileUnchanged(at: offset, count: 1) { () throws(EngineError) in
      try extentUnlocked(at: offset, limit: min(limit, virtualSize - offset))
    }
  }

  private func extentUnlocked(at offset: UInt64, limit: UInt64) throws(EngineError) -> LocatedExtent {
    var found = try locate(at: offset, limit: limit)
    let layer = layers[found.depth]
    // Encrypted zeros are no zeros.
    if found.extent.source == .stored, !found.extent.isEncrypted, layer.storesHoles,
      let host = found.extent.hostOffset
    {
      let run = try layer.store(found.extent.store).run(at: host, limit: found.extent.length)
      found.extent.isHole = !run.isData
      found.extent.length = run.length
    }
    return found
  }

  /// Runs `body` while nobody changes these guest bytes or where they lie. It may read the disk, but not write it.
  public func whileUnchanged<T>(
    at offset: UInt64, count: UInt64, _ body: () throws(EngineError) -> T
  ) throws(EngineError) -> T {
    guard isChanging, count > 0 else { return try body() }
    try check(offset, count)
    return try ranges.withRange(offset..<offset + count, exclusive: false) { () throws(EngineError) in
      try check(offset, count)
      return try body()
    }
  }

  /// Fills all of `buffer` with the guest bytes from `offset` on.
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    guard buffer.count > 0 else { return }
    if !isChanging { try check(offset, UInt64(buffer.count)) }
    try whileUnchanged(at: offset, count: UInt64(buffer.count)) { () throws(EngineError) in
      unsafe try readUnlocked(into: buffer, at: offset)
    }
  }

  func readUnlocked(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    var done = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let found = try locate(at: position, limit: UInt64(buffer.count - done))
      // SAFETY: an extent is at most the limit long, so the piece ends inside the buffer.
      let piece = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[done..<done + Int(found.extent.length)])
      unsafe try read(found, at: position, into: piece)
      done += piece.count
    }
  }

  /// `count` guest bytes as an array: for a look at what lies there, not for the data path.
  public func bytes(at offset: UInt64, count: Int) throws(EngineError) -> [UInt8] {
    unsafe try [UInt8](count: count) { (buffer) throws(EngineError) in
      unsafe try read(into: buffer, at: offset)
    }
  }

  /// Fills `buffer` from one extent that starts at `offset` and is at least as long.
  public func read(
    _ found: LocatedExtent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    let extent = found.extent
    switch extent.source {
    case .below, .zeros:
      unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
    case .stored:
      guard let host = extent.hostOffset else { throw .corrupt("Stored bytes without a place", at: offset) }
      if extent.isEncrypted { return unsafe try readEncrypted(found, at: offset, host, into: buffer) }
      unsafe try layers[found.depth].store(extent.store).read(into: buffer, at: host)
    case .compressed:
      unsafe try readCompressed(found, at: offset, into: buffer)
    }
  }

  /// Whole sectors are decrypted where they are wanted, parts of them by way of a buffer.
  private func readEncrypted(
    _ found: LocatedExtent, at offset: UInt64, _ host: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    let layer = layers[found.depth]
    guard let cipher = layer.cipher else { throw .missingKey }
    let store = layer.store(found.extent.store)
    let unit = LayerCipher.sectorByteCount
    let before = offset % unit
    guard host % unit == before else {
      throw .corrupt("Encrypted bytes are not in whole sectors", at: offset)
    }
    if before == 0 && UInt64(buffer.count).isAligned(to: unit) {
      unsafe try store.read(into: buffer, at: host)
      return unsafe try cipher.decrypt(buffer, guestOffset: offset, hostOffset: host)
    }
    let (end, firstSector) = (offset + UInt64(buffer.count), offset - before)
    let sectors = fillBuffers.take()
    defer { fillBuffers.give(sectors) }
    var position = offset
    while position < end {
      let start = position.aligned(downTo: unit)
      let stop = min(end.aligned(upTo: unit), start + UInt64(sectors.byteCount))
      let whole = unsafe sectors.prefix(Int(stop - start))
      let wholeHost = host - before + (start - firstSector)
      unsafe try store.read(into: whole, at: wholeHost)
      unsafe try cipher.decrypt(whole, guestOffset: start, hostOffset: wholeHost)
      let pieceEnd = min(stop, end)
      // SAFETY: the piece lies inside the sectors that were read, and inside what was asked for.
      unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(position - offset)..<Int(pieceEnd - offset)]
      ).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: whole[Int(position - start)..<Int(pieceEnd - start)]))
      position = pieceEnd
    }
  }

  private func readCompressed(
    _ found: LocatedExtent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    let layer = layers[found.depth]
    let unit = try layer.packedUnit(at: offset)
    let start = unit.lowerBound
    if offset == start && buffer.count == unit.count {
      return unsafe try layer.readCompressed(found.extent, at: offset, into: buffer)
    }
    let first = Int(offset - start)
    try unpacked.using(clusterOf: unit.count) { () throws(EngineError) in
      let cluster = try unpackedCluster(found, layer, at: start, byteCount: unit.count)
      guard first + buffer.count <= cluster.byteCount else {
        throw .corrupt("Compressed extent is longer than its cluster", at: offset)
      }
      unsafe buffer.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: cluster.bytes[first..<first + buffer.count]))
    }
  }

  private func unpackedCluster(
    _ found: LocatedExtent, _ layer: any ImageLayer, at start: UInt64, byteCount: Int
  ) throws(EngineError) -> AlignedBuffer {
    let depth = unpackedDepth + found.depth
    if let cluster = unpacked.find(depth: depth, guestOffset: start) { return cluster }
    let generation = unpacked.generation
    // Not beside the one that goes for it.
    unpacked.makeRoom(for: byteCount)
    let cluster = AlignedBuffer(byteCount: byteCount)
    var whole = found.extent
    whole.length = UInt64(byteCount)
    unsafe try layer.readCompressed(whole, at: start, into: cluster.bytes)
    unpacked.insert(
      cluster, depth: depth, guestOffset: start, byteCount: byteCount, generation: generation)
    return cluster
  }
}
