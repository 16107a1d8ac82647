// From the opening of an image for writing to its closing.

extension ParallelsState {
  /// Makes ready for writing: an image with errors is mended first, as qemu-img does. `note` takes what there is
  /// to tell.
  mutating func openForWriting(note: (String) -> Void, _ progress: Progress) throws(EngineError) {
    var checker = try ParallelsChecker(header, file: file, progress: progress)
    if try checker.run().corruptions > 0 {
      checker = try ParallelsChecker(header, file: file, progress: progress, repairing: .all)
      try checker.run().findings.forEach(note)
      header = checker.header
      checker = try ParallelsChecker(header, file: file, progress: progress)
      guard try checker.run().corruptions == 0 else {
        throw .corrupt("Could not repair corrupted image")
      }
    }
    used = checker.used
    if header.extensionSector != 0 { note("Format Extension ignored in RW mode") }
  }

  /// The first change: the image says that it is in use, and loses its format extension, whose bitmaps would not
  /// know of what is written.
  mutating func prepareToWrite() throws(EngineError) {
    guard !isInUse else { return }
    guard used != nil else { throw EngineError(.readOnly, "The image is opened read-only") }
    try ParallelsExtension.requireDroppable(header, from: file)
    var marked = header
    marked.inUse = ParallelsHeader.inUseMark
    marked.extensionSector = 0
    marked.flags &= ~ParallelsHeader.emptyFlag
    try marked.write(to: file)
    try file.flush()
    let hadExtension = header.extensionSector != 0
    closedMark = header.inUse
    header = marked
    isInUse = true
    if hadExtension { used = try Self.usedClusters(marked, file: file) }
  }

  /// The header as it would be if nobody wrote.
  var savedHeader: ParallelsHeader {
    var saved = header
    if isInUse { saved.inUse = closedMark }
    return saved
  }

  /// Finds out which clusters are in use, for an image whose BAT has no errors.
  private static func usedClusters(_ header: ParallelsHeader, file: any ByteStore) throws(EngineError)
    -> ParallelsUsedClusters
  {
    var checker = try ParallelsChecker(header, file: file, progress: .none)
    _ = try checker.run()
    return checker.used
  }

  /// All that was linked is on disk. What was let go of before can then be used again.
  mutating func flush() throws(EngineError) {
    try order.flush()
    for clusters in released {
      if let host = used?.hostOffset(of: clusters.lowerBound) {
        file.forget(at: host, count: UInt64(clusters.count) * geometry.clusterSize)
      }
      used?.free(clusters)
    }
    released.removeAll()
  }

  /// All is on disk, the file ends with the data, and the image is no longer in use.
  mutating func close() throws(EngineError) {
    try flush()
    guard isInUse, let end = used?.end else { return }
    if !file.isDevice, try file.byteCount() > end {
      try file.resize(to: end)
      try file.flush()
    }
    var unmarked = header
    unmarked.inUse = closedMark
    try unmarked.write(to: file)
    try file.flush()
    header = unmarked
    isInUse = false
  }
}
