import Synchronization

extension VPCFixedLayer: Resizable {
  /// The footer is written at its new place before it goes from the old one.
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard preallocation != .metadata else { throw VPCResizeLimits.unsupported(preallocation) }
    try VPCResizeLimits.check(newSize)
    let (old, oldEnd) = end.withLock { $0 }
    let oldSize = virtualSize
    guard newSize != oldSize else { return }
    if newSize > oldSize, preallocation != .off { try reserve(oldSize..<newSize, preallocation, progress) }
    var footer = old
    footer.setVirtualSize(newSize)
    try file.write(bytes: footer.bytes, at: newSize)
    try file.flush()
    if newSize > oldSize {
      // The old footer is the guest's now, and what else lay behind the disk.
      let stale = min(oldEnd + UInt64(VPCFooter.byteCount), newSize)
      if stale > oldSize { try file.writeZeros(at: oldSize, count: stale - oldSize, freeing: false) }
    }
    // The footer has to come last.
    let newEnd = newSize + UInt64(VPCFooter.byteCount)
    if try file.byteCount() > newEnd { try file.resize(to: newEnd) }
    end.withLock { $0 = (footer, newSize) }
    size.store(newSize, ordering: .relaxed)
    try file.flush()
  }

  /// Room for what a disk grows by, before anything says that it has grown; without it the file stays as it is.
  private func reserve(_ range: Range<UInt64>, _ preallocation: Preallocation, _ progress: Progress)
    throws(EngineError)
  {
    let byteCount = try file.byteCount()
    do throws(EngineError) {
      try file.setAside(at: range.lowerBound, count: range.upperBound - range.lowerBound, .falloc)
      // The old footer stays until there is a new one.
      let start = max(range.lowerBound, byteCount)
      if preallocation == .full, start < range.upperBound {
        try file.writeZeroBytes(at: start, count: range.upperBound - start, progress)
      }
    } catch {
      if try file.byteCount() > byteCount { try? file.resize(to: byteCount) }
      throw error
    }
  }
}
