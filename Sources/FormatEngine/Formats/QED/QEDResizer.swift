import Synchronization

extension QEDLayer: Resizable {
  var canShrink: Bool { false }

  /// The tables of a QED image have room for every size that its geometry allows, so only the header changes.
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard preallocation == .off else {
      throw .unsupported("Unsupported preallocation mode '\(preallocation.rawValue)'")
    }
    guard geometry.allows(virtualSize: newSize) else { throw .invalid("Invalid image size specified") }
    let old = virtualSize
    guard newSize >= old else { throw .unsupported("Shrinking images is currently not supported") }
    guard newSize > old else { return }
    setSizeInMemory(newSize)
    do throws(EngineError) {
      try clearing()
      try flush()
      try changeHeader { (prologue) throws(EngineError) in prologue.header.virtualSize = newSize }
    } catch {
      setSizeInMemory(old)
      throw error
    }
  }

  /// The new size as all but the image knows it.
  private func setSizeInMemory(_ byteCount: UInt64) {
    size.store(byteCount, ordering: .relaxed)
    state.withLock { $0.virtualSize = byteCount }
  }

  /// Writes another header, which is on disk when it returns.
  private func changeHeader(_ body: (inout QEDPrologue) throws(EngineError) -> Void) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      var prologue = state.prologue
      prologue.header.autoclearFeatures = 0
      try body(&prologue)
      do throws(EngineError) {
        try prologue.header.write(to: file)
      } catch {
        // It may be there all the same, and the one that is known here is to be.
        try? state.prologue.header.write(to: file)
        throw error
      }
      state.prologue = prologue
    }
  }
}

extension QEDLayer: BackingChanging {
  var storedUnit: UInt64 { clusterSize }
  var marksZeros: Bool { true }

  /// The new name is written beside the old one; then the header points to it.
  func setBacking(_ backing: BackingReference?) throws(EngineError) {
    try changeHeader { (prologue) throws(EngineError) in
      // What else may stand in the header's clusters only those know who wrote it.
      guard prologue.header.compatibleFeatures == 0 else {
        throw .unsupported("The image has features that are not known here")
      }
      let slot = UInt64(QEDHeader.maximumNameLength + 1)
      let first = UInt64(QEDHeader.byteCount)
      let oldRange = prologue.header.nameRange
      let isFirstFree = oldRange.isEmpty || !oldRange.overlaps(first..<first + slot)
      let place = isFirstFree ? first : first + slot
      let name = try prologue.setBacking(backing, at: UInt32(place))
      // An old name that reaches into both slots is nobody's; it is left alone.
      guard oldRange.isEmpty || name.isEmpty || !oldRange.overlaps(place..<place + slot) else {
        throw EngineError(.noSpace, "There is no room for another name in the header")
      }
      try file.write(bytes: name, at: place)
      try file.flush()
    }
  }
}

extension QEDLayer: Emptyable {
  /// Empties the L1 table, and cuts off what lay behind it.
  func removeContent(progress: Progress) throws(EngineError) {
    try state.withLock { (state) throws(EngineError) in
      try state.flush()
      try state.markInUse()
      let l1Offset = state.prologue.header.l1Offset
      try file.writeZeros(at: l1Offset, count: geometry.tableByteCount, freeing: true)
      try file.flush()
      let end = l1Offset + geometry.tableByteCount
      if try file.byteCount() > end { try file.resize(to: end) }
      try state.startAfresh()
    }
  }
}
