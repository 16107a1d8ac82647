import Synchronization

/// Where written bytes go: each extent decides for its own part of the disk.
extension VMDKLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try change(at: offset, limit: limit) { (map, index, start, limit) throws(EngineError) in
      var room = try map.allocate(at: offset - start, limit: limit)
      room.guestOffset += start
      room.store = UInt16(truncatingIfNeeded: index)
      return room
    }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      let (index, start, _) = state.extent(holding: allocation.guestOffset)
      var own = allocation
      own.guestOffset -= start
      try state.map(of: index).link(own)
    }
  }

  func abandon(_ allocation: Allocation) {
    state.withLock { state in
      let (index, start, _) = state.extent(holding: allocation.guestOffset)
      var own = allocation
      own.guestOffset -= start
      // Without a map nothing was set aside.
      if let map = try? state.map(of: index) { map.abandon(own) }
    }
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    try change(at: offset, limit: limit) { (map, _, start, limit) throws(EngineError) in
      try map.setZeros(at: offset - start, limit: limit, keepingRoom: keepingRoom)
    }
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try change(at: offset, limit: limit) { (map, _, start, limit) throws(EngineError) in
      try map.discard(at: offset - start, limit: limit)
    }
  }

  func flush() throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      for map in state.openMaps { try map.flush() }
    }
    if unitPacking == .always { try file.flush() }
  }

  func close() throws(EngineError) { try flush() }

  /// Runs a change in the extent that holds `offset`, with what of `limit` lies in it. The first change of a session
  /// gives the image another content id.
  private func change<T: Sendable>(
    at offset: UInt64, limit: UInt64,
    _ body: (any VMDKExtentMap, _ index: Int, _ start: UInt64, _ limit: UInt64) throws(EngineError) -> T
  ) throws(EngineError) -> T {
    try state.withLock { (state) throws(EngineError) in
      let (index, start, end) = state.extent(holding: offset)
      guard extents[index].line.access == .readWrite else {
        throw EngineError(
          .readOnly,
          "The extent '\(extents[index].line.fileName)' is marked \(extents[index].line.access.rawValue)",
          offset: offset)
      }
      guard extents[index].geometry?.isPacked != true else {
        throw EngineError(
          .unsupported, "A streamOptimized VMDK image is written only once, from front to back, by convert",
          offset: offset)
      }
      let map = try state.map(of: index)
      try renewContentID(&state)
      return try body(map, index, start, min(limit, end - offset))
    }
  }

  /// Children were made over what the disk was until now. The new id is on disk before anything else changes: a
  /// change that nobody can tell is worse than an id without one. It is as long as the old one, so that one small
  /// write does it and the rest of the descriptor stays as it is.
  ///
  /// `next`: the id that was announced before.
  func renewContentID(_ state: inout VMDKState, to next: UInt32? = nil) throws(EngineError) {
    guard !state.hasNewContentID else { return }
    guard !hasChangeTracking else {
      throw .unsupported(
        "The image tracks its changes in another file (changeTrackPath), which is not written")
    }
    let value = if let next { next } else { try nextContentID(state) }
    let digits = VMDKDescriptor.digits(value, count: descriptorPlace.contentIDRange.count)
    let start = descriptorPlace.offset
    try descriptorPlace.file.write(
      bytes: digits, at: start + UInt64(descriptorPlace.contentIDRange.lowerBound))
    if let range = descriptorPlace.longContentIDRange {
      let long = try VMDKDescriptor.newLongContentID(endingWith: value, identities)
      try descriptorPlace.file.write(bytes: long, at: start + UInt64(range.lowerBound))
    }
    try descriptorPlace.file.flush()
    state.contentID = value
    state.hasNewContentID = true
  }

  /// The id that the next change gives the image.
  func nextContentID(_ state: VMDKState) throws(EngineError) -> UInt32 {
    try VMDKDescriptor.newContentID(
      after: state.contentID, digitCount: descriptorPlace.contentIDRange.count, identities
    ).value
  }
}
