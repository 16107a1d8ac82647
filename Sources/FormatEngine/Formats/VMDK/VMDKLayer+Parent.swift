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
