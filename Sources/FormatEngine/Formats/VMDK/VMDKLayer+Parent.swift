import Synchronization

extension VMDKLayer: ParentChecking {
  /// The parent must be the very state that this image was made over: its content id says which it is.
  func checkParent(_ parent: any ImageLayer, path parentPath: String) throws(EngineError) {
    guard let parent = parent as? VMDKLayer else {
      throw .invalid("'\(parentPath)' is no VMDK image: it cannot be the parent of '\(path)'")
    }
    let (recorded, next) = state.withLock { ($0.parentContentID, $0.nextParentContentID) }
    guard parent.contentID == recorded || parent.contentID == next else {
      throw .corrupt(
        "The parent '\(parentPath)' has changed since '\(path)' was made over it: its content id is "
          + "\(hex(UInt64(parent.contentID))), not \(hex(UInt64(parentContentID)))")
    }
  }
}

extension VMDKLayer: ParentRecording {
  /// The parent's next content id stands here before the parent has it: whenever the power fails, its id is one of the two
  /// that are known here.
  func recordChange(ofParent parent: any ImageLayer) throws(EngineError) {
    guard let parent = parent as? VMDKLayer else { return }
    // What an earlier commit has left: only one id can be announced at a time.
    try recordState(ofParent: parent)
    let next = try parent.state.withLock { (state) throws(EngineError) in
      state.hasNewContentID ? nil : try parent.nextContentID(state)
    }
    guard let next else { return }
    try announce(next)
    try parent.state.withLock { (state) throws(EngineError) in try parent.renewContentID(&state, to: next) }
    try recordState(ofParent: parent)
  }

  /// As a line behind all others, which stays: when the parent has its id it says nothing new. Where there is no room for
  /// it nothing is announced.
  private func announce(_ next: UInt32) throws(EngineError) {
    let (place, digits) = (descriptorPlace, VMDKDescriptor.digits(next, count: 8))
    try state.withLock { (state) throws(EngineError) in
      if let range = state.nextParentContentIDRange {
        try place.file.write(bytes: digits, at: place.offset + UInt64(range.lowerBound))
      } else {
        let line = [UInt8(ascii: "\n")] + VMDKDescriptor.nextParentPrefix + digits + [UInt8(ascii: "\n")]
        guard place.textEnd + line.count < place.capacity else { return }
        // Where a longer text stood once its rest does not become part of this one.
        let end = place.offset + UInt64(place.textEnd + line.count)
        let isFollowed = try place.file.bytes(at: end, count: 1) != [0]
        try place.file.write(bytes: isFollowed ? line + [0] : line, at: place.offset + UInt64(place.textEnd))
        let start = place.textEnd + line.count - 1 - digits.count
        state.nextParentContentIDRange = start..<start + digits.count
      }
      try place.file.flush()
      state.nextParentContentID = next
    }
  }

  /// In the place of the old content id: the rest of the descriptor stays as it is.
  func recordState(ofParent parent: any ImageLayer) throws(EngineError) {
    guard let parent = parent as? VMDKLayer else { return }
    let new = parent.contentID
    let range = descriptorPlace.parentContentIDRange
    let digits = VMDKDescriptor.digits(new, count: range.count)
    try state.withLock { (state) throws(EngineError) in
      guard new != state.parentContentID else { return }
      guard digits.count == range.count else {
        throw .unsupported("The descriptor of '\(path)' has no room for its parent's new content id")
      }
      try descriptorPlace.file.write(bytes: digits, at: descriptorPlace.offset + UInt64(range.lowerBound))
      try descriptorPlace.file.flush()
      state.parentContentID = new
    }
  }
}
