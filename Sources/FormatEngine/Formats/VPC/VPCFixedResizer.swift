import Synchronization

extension VPCFixedLayer: Resizable {
  /// The footer is written at its new place before it goes from the old one.
  func resize(
    to newSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    try VPCResizeLimits.check(newSize, preallocation == .metadata ? .metadata : .off)
    let (old, oldEnd) = end.withLock { $0 }
    let oldSize = virtualSize
    guard newSize != oldSize else { return }
    var footer = old
    footer.setVirtualSize(newSize)
    try file.write(bytes: footer.bytes, at: newSize)
    try file.flush()
    if newSize > oldSize {
      // The old footer is the guest's now, and what else lay behind the disk.
      let stale = min(oldEnd + UInt64(VPCFooter.byteCount), newSize)
      if stale > oldSize { try file.writeZeros(at: oldSize, count: stale - oldSize, freeing: false) }
      if preallocation != .off { try (file as? FileStore)?.reserve(at: oldSize, count: newSize - oldSize) }
    }
    // The footer has to come last.
    let newEnd = newSize + UInt64(VPCFooter.byteCount)
    if try file.byteCount() > newEnd { try file.resize(to: newEnd) }
    end.withLock { $0 = (footer, newSize) }
    size.store(newSize, ordering: .relaxed)
    try file.flush()
  }
}
