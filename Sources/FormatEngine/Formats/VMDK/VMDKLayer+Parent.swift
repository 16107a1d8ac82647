import Synchronization

extension VMDKLayer: ParentChecking {
  /// The parent must be the very state that this image was made over: its content id says which it is.
  func checkParent(_ parent: any ImageLayer, path parentPath: String) throws(EngineError) {
    guard let parent = parent as? VMDKLayer else {
      throw .invalid("'\(parentPath)' is no VMDK image: it cannot be the parent of '\(path)'")
    }
    guard parent.contentID == parentContentID else {
      throw .corrupt(
        "The parent '\(parentPath)' has changed since '\(path)' was made over it: its content id is "
          + "\(hex(UInt64(parent.contentID))), not \(hex(UInt64(parentContentID)))")
    }
  }
}

extension VMDKLayer: ParentRecording {
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
