extension ImageChain {
  /// Gives the disk another size. What is added reads as zeros, though a file below may be longer; what is cut off
  /// is gone. On disk when it returns.
  public func resize(
    to byteCount: UInt64, preallocation: Preallocation = .off, progress: Progress = .none
  ) throws(EngineError) {
    try changingWhole { () throws(EngineError) in
      try resizeUnlocked(to: byteCount, preallocation, progress)
    }
  }

  /// Changes features of the image, and perhaps its size with them.
  public func amend(_ options: OptionValues, _ request: AmendRequest, progress: Progress = .none)
    throws(EngineError)
  {
    guard let layer = writer as? any Amendable else {
      throw .unsupported("Format driver '\(members[0].formatName)' does not support option amendment")
    }
    try changingWhole { () throws(EngineError) in
      try layer.amend(options, request, progress: progress) { (byteCount) throws(EngineError) in
        try resizeUnlocked(to: byteCount, .off, progress)
      }
    }
  }

  private func resizeUnlocked(
    to byteCount: UInt64, _ preallocation: Preallocation, _ progress: Progress
  ) throws(EngineError) {
    guard let layer = writer as? any Resizable else {
      guard writer != nil else {
        throw EngineError(.readOnly, "The image is opened read-only", path: members[0].path)
      }
      throw .unsupported("Image format driver does not support resize")
    }
    let old = virtualSize
    // Nobody knows whether that is longer, and would show.
    if byteCount > old, let missing = layers.dropFirst().first as? MissingLayer {
      throw missing.image.readFailure
    }
    try layer.resize(to: byteCount, preallocation: preallocation, progress: progress) {
      () throws(EngineError) in
      // A file below may be longer, and entries past the old end may be left over from when the disk was
      // larger; so may the rest of the last cluster.
      if byteCount > old { try clear(from: old, to: byteCount, layer) }
    }
  }

  /// Makes zeros of what does not read as zeros by itself: whole clusters where that is possible, however small
  /// the pieces are in the file below.
  private func clear(from start: UInt64, to end: UInt64, _ layer: any WritableLayer) throws(EngineError) {
    let unit = max(layer.clusterSize, 1)
    var position = start
    while position < end {
      let found = try locate(at: position, limit: end - position)
      let isClear = found.extent.source == .below || (found.depth == 0 && found.readsAsZeros)
      if isClear {
        position += found.extent.length
      } else {
        let first = max(start, position.floored(to: unit))
        position = min(end, (position + found.extent.length).raised(to: unit))
        try writeZerosUnlocked(at: first, count: position - first, layer)
      }
    }
  }
}
