extension ImageChain {
  /// Writes guest bytes. They are on disk after the next `flush`, or at once where the cache mode writes through.
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe try write(GivenBytes(bytes), at: offset)
  }

  func write(_ given: GivenBytes, at offset: UInt64) throws(EngineError) {
    guard given.count > 0 else { return }
    let writer = try writer(for: offset, UInt64(given.count))
    if try writeInPlace(given, at: offset, writer) { return }
    try changing(offset, UInt64(given.count)) { () throws(EngineError) in
      try writeUnlocked(given, at: offset, writer)
    }
  }

  /// Writes where the guest reads these bytes already; false where they do not all lie in one place. It changes no
  /// table, so it holds only the bytes themselves: writes to parts of one cluster run beside each other.
  private func writeInPlace(
    _ given: GivenBytes, at offset: UInt64, _ writer: any WritableLayer
  ) throws(EngineError) -> Bool {
    let end = offset + UInt64(given.count)
    guard writer.cipher == nil else { return false }
    return try ranges.withRange(offset..<end, exclusive: true) { () throws(EngineError) in
      try check(offset, UInt64(given.count))
      guard let room = try writer.roomInPlace(at: offset, limit: UInt64(given.count)), room.guestEnd >= end
      else {
        return false
      }
      let host = room.hostOffset + (offset - room.guestOffset)
      try given.write(to: writer.store(room.store), at: host)
      return true
    }
  }

  /// Makes guest bytes read as zeros, without storing zeros where the format can do without. `keepingRoom`: what
  /// takes room goes on taking it.
  public func writeZeros(at offset: UInt64, count: UInt64, keepingRoom: Bool = false) throws(EngineError) {
    guard count > 0 else { return }
    let writer = try writer(for: offset, count)
    try changing(offset, count) { () throws(EngineError) in
      try writeZerosUnlocked(at: offset, count: count, keepingRoom: keepingRoom, writer)
    }
  }

  func writeZerosUnlocked(
    at offset: UInt64, count: UInt64, keepingRoom: Bool = false, _ writer: any WritableLayer
  ) throws(EngineError) {
    let end = offset + count
    var position = offset
    while position < end {
      var done = try writer.setZeros(at: position, limit: end - position, keepingRoom: keepingRoom)
      if done == 0 {
        // A part of a cluster: only up to its end, the next one may do without.
        let unit = max(writer.clusterSize, 1)
        done =
          unit == 1 ? min(end - position, MiB) : min(end, (position + 1).raised(to: unit)) - position
        try writeStoredZeros(at: position, count: done, writer)
      }
      position += done
    }
  }

  /// Lets go of what guest bytes take in the image; they read as zeros, or as what lies below.
  public func discard(at offset: UInt64, count: UInt64) throws(EngineError) {
    guard count > 0 else { return }
    let writer = try writer(for: offset, count)
    try changing(offset, count) { () throws(EngineError) in
      let end = offset + count
      var position = offset
      while position < end { position += try writer.discard(at: position, limit: end - position) }
    }
  }

  private func writer(for offset: UInt64, _ count: UInt64) throws(EngineError) -> any WritableLayer {
    guard let writer else {
      throw EngineError(.readOnly, "The image is opened read-only", path: members[0].path)
    }
    try check(offset, count)
    return writer
  }

  /// Runs a change with every cluster that it touches held for itself, and sees it through where the cache mode says
  /// so: the bytes are on disk then, but not yet the tables that lead to them.
  private func changing(_ offset: UInt64, _ count: UInt64, _ body: () throws(EngineError) -> Void)
    throws(EngineError)
  {
    // What is encrypted is written by whole sectors: two writes must not change one at the same time.
    let unit = max(layers[0].clusterSize, layers[0].cipher == nil ? 1 : LayerCipher.sectorByteCount)
    let range = offset.floored(to: unit)..<(offset + count).raised(to: unit)
    try ranges.withRange(range, exclusive: true) { () throws(EngineError) in
      try check(offset, count)
      // Before and after: a read of the old bytes that runs beside the change keeps nothing of them.
      unpacked.invalidate(range)
      defer { unpacked.invalidate(range) }
      try body()
    }
    if members[0].cache.writesThrough { try flush() }
  }

  private func writeUnlocked(_ given: GivenBytes, at offset: UInt64, _ writer: any WritableLayer)
    throws(EngineError)
  {
    var done = 0
    while done < given.count {
      let position = offset + UInt64(done)
      let room = try writer.allocate(at: position, limit: UInt64(given.count - done))
      if room.isNew {
        Trace.emit(
          .clusterAllocate,
          "guest \(room.guestOffset) bytes \(room.guestEnd - room.guestOffset) host \(room.hostOffset)")
      }
      let count = Int(min(UInt64(given.count - done), room.guestEnd - position))
      do throws(EngineError) {
        try fill(room, with: given.piece(done..<done + count), at: position, writer)
      } catch {
        if room.isNew {
          Trace.emit(.clusterAbandon, "guest \(room.guestOffset) host \(room.hostOffset)")
          writer.abandon(room)
        }
        throw error
      }
      if room.isNew {
        try writer.link(room)
        Trace.emit(.clusterLink, "guest \(room.guestOffset) host \(room.hostOffset)")
      }
      done += count
    }
  }

  /// Writes `piece`, and around it what the guest reads of a new allocation until now.
  private func fill(
    _ room: Allocation, with piece: GivenBytes, at position: UInt64, _ writer: any WritableLayer
  ) throws(EngineError) {
    let store = writer.store(room.store)
    let end = position + UInt64(piece.count)
    if let cipher = writer.cipher {
      let unit = LayerCipher.sectorByteCount
      let whole =
        room.isNew
        ? room.guestOffset..<room.guestEnd : position.aligned(downTo: unit)..<end.aligned(upTo: unit)
      let bytes = unsafe try piece.bytes(0..<piece.count)
      return unsafe try fillEncrypted(room, whole, with: bytes, at: position, store, cipher)
    }
    if room.isNew { try copyOld(room, from: room.guestOffset, to: position, store) }
    try piece.write(to: store, at: room.hostOffset + (position - room.guestOffset))
    if room.isNew { try copyOld(room, from: end, to: room.guestEnd, store) }
  }

  /// Encrypts and writes the guest bytes of `whole`, which are whole sectors: `piece`, and around it what the
  /// guest reads there until now.
  private func fillEncrypted(
    _ room: Allocation, _ whole: Range<UInt64>, with piece: UnsafeRawBufferPointer, at position: UInt64,
    _ store: any ByteStore, _ cipher: LayerCipher
  ) throws(EngineError) {
    let pieceEnd = position + UInt64(piece.count)
    let buffer = fillBuffers.take()
    defer { fillBuffers.give(buffer) }
    var start = whole.lowerBound
    while start < whole.upperBound {
      let end = min(whole.upperBound, start + UInt64(buffer.byteCount))
      let sectors = unsafe buffer.prefix(Int(end - start))
      let given = max(min(position, end), start)..<max(min(pieceEnd, end), start)
      var source = UnsafeRawBufferPointer(sectors)
      if !given.isEmpty {
        // SAFETY: `given` lies inside the piece.
        unsafe source = unsafe UnsafeRawBufferPointer(
          rebasing: piece[Int(given.lowerBound - position)..<Int(given.upperBound - position)])
      }
      if given != start..<end {
        unsafe try readOld(into: sectors, at: start, from: start, to: given.lowerBound)
        if !given.isEmpty {
          unsafe UnsafeMutableRawBufferPointer(rebasing: sectors[Int(given.lowerBound - start)...])
            .copyMemory(from: source)
        }
        unsafe try readOld(into: sectors, at: start, from: given.upperBound, to: end)
        unsafe source = UnsafeRawBufferPointer(sectors)
      }
      // A write inside a sector begins before the room that it was given, which lies in the same cluster.
      let host = room.hostOffset &+ (start &- room.guestOffset)
      unsafe try cipher.encrypt(source, into: sectors, guestOffset: start, hostOffset: host)
      unsafe try store.write(UnsafeRawBufferPointer(sectors), at: host)
      start = end
    }
  }

  /// Copies what the guest reads now into a new allocation.
  private func copyOld(
    _ room: Allocation, from start: UInt64, to end: UInt64, _ store: any ByteStore
  ) throws(EngineError) {
    guard start < end else { return }
    let buffer = fillBuffers.take()
    defer { fillBuffers.give(buffer) }
    var position = start
    while position < end {
      if room.readsAsZeros, let length = try zeroRun(from: position, to: end) {
        position += length
        continue
      }
      let count = Int(min(end - position, UInt64(buffer.byteCount)))
      let piece = unsafe buffer.prefix(count)
      unsafe try readOld(into: piece, at: position, from: position, to: position + UInt64(count))
      let bytes = UnsafeRawBufferPointer(piece)
      if unsafe !(room.readsAsZeros && ZeroScan.isZero(bytes)) {
        unsafe try store.write(bytes, at: room.hostOffset + (position - room.guestOffset))
      }
      position += UInt64(count)
    }
  }

  /// How many bytes from `start` on are known to read as zeros, nil where that is not known; past the end of the
  /// disk all are.
  private func zeroRun(from start: UInt64, to end: UInt64) throws(EngineError) -> UInt64? {
    guard start < virtualSize else { return end - start }
    let found = try locate(at: start, limit: min(end, virtualSize) - start)
    return found.readsAsZeros ? found.extent.length : nil
  }

  /// Fills the part of `buffer` that is for guest bytes `start ..< end`; its first byte is for `offset`. Past the
  /// end of the disk there are zeros.
  private func readOld(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, from start: UInt64, to end: UInt64
  ) throws(EngineError) {
    guard start < end else { return }
    let piece = unsafe UnsafeMutableRawBufferPointer(
      rebasing: buffer[Int(start - offset)..<Int(end - offset)])
    let inside = start < virtualSize ? Int(min(end - start, virtualSize - start)) : 0
    unsafe try readUnlocked(into: UnsafeMutableRawBufferPointer(rebasing: piece[0..<inside]), at: start)
    unsafe UnsafeMutableRawBufferPointer(rebasing: piece[inside...])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }

  private func writeStoredZeros(at offset: UInt64, count: UInt64, _ writer: any WritableLayer)
    throws(EngineError)
  {
    let buffer = fillBuffers.take()
    defer { fillBuffers.give(buffer) }
    var done: UInt64 = 0
    while done < count {
      let zeros = unsafe buffer.prefix(Int(min(count - done, UInt64(buffer.byteCount))))
      unsafe zeros.initializeMemory(as: UInt8.self, repeating: 0)
      unsafe try writeUnlocked(GivenBytes(UnsafeRawBufferPointer(zeros)), at: offset + done, writer)
      done += UInt64(zeros.count)
    }
  }
}
