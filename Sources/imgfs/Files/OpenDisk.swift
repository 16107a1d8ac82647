import FormatEngine

/// A disk that somebody reads or writes.
final class OpenDisk: Sendable {
  /// How a request is answered.
  enum Source {
    /// The bytes lie as they are in a file of the host.
    case file(descriptor: CInt, offset: UInt64)
    /// One extent holds them all.
    case extent(LocatedExtent)
    case severalExtents
  }

  /// From this size on it is cheaper to hand pages of the host's file to the kernel than to copy them
  /// (by 15 % at 64 KiB; at 32 KiB there is no difference).
  static let spliceByteCount = 64 * 1024

  let file: DiskFile
  private let use: ImageUse
  private let hold: SnapshotHolds.Hold?
  /// What the bytes are read from; nil where that is the session's chain at the moment of each request.
  private let chain: ImageChain?
  private let start: UInt64

  init(_ file: DiskFile) throws(EngineError) {
    self.file = file
    hold = try file.view.hold()
    let isLive = if case .live = file.view.source { true } else { false }
    use = try file.view.session.use(pinning: !isLive)
    start = file.view.window?.lowerBound ?? 0
    chain = try use.chain.map { (chain) throws(EngineError) in try file.view.chain(of: chain) }
  }

  /// Whether its bytes can be changed.
  var isWritable: Bool {
    guard file.view.isWritable else { return false }
    return (try? withChain { (chain) throws(EngineError) in chain.isWritable }) ?? false
  }

  /// Runs `body` with the chain that has the bytes.
  func withChain<T>(_ body: (ImageChain) throws(EngineError) -> T) throws(EngineError) -> T {
    if let chain { return try body(chain) }
    return try use.session.withChain(body)
  }

  /// Runs `body` while nobody changes the bytes of a request, which must lie inside the disk.
  func reading<T>(
    at offset: UInt64, count: Int, _ body: (ImageChain) throws(EngineError) -> T
  ) throws(EngineError) -> T {
    try withChain { (chain) throws(EngineError) in
      try chain.whileUnchanged(at: start + offset, count: UInt64(count)) { () throws(EngineError) in
        try body(chain)
      }
    }
  }

  var byteCount: UInt64 {
    let size =
      (try? withChain { (chain) throws(EngineError) in chain.virtualSize }) ?? file.view.listedByteCount
    guard let window = file.view.window else { return min(size, maximumFileOffset) }
    // The disk may have become smaller.
    return window.clamped(to: 0..<max(size, window.lowerBound)).upperBound - window.lowerBound
  }

  /// Where `count` bytes at `offset` are, in a chain that `reading` gave; the request must lie inside the disk and not
  /// be empty.
  func source(at offset: UInt64, count: Int, in chain: ImageChain) throws(EngineError) -> Source {
    let found = try chain.locate(at: start + offset, limit: UInt64(count))
    guard found.extent.length == UInt64(count) else { return .severalExtents }
    guard count >= Self.spliceByteCount, found.extent.source == .stored, !found.extent.isEncrypted,
      let host = found.extent.hostOffset
    else { return .extent(found) }
    let store = chain.members[found.depth].layer.store(found.extent.store)
    // An image may end within its last cluster; what lies past its end are zeros that no file has.
    guard let descriptor = store.spliceDescriptor, host <= maximumFileOffset - UInt64(count),
      try host + UInt64(count) <= store.byteCount()
    else { return .extent(found) }
    return .file(descriptor: descriptor, offset: host)
  }

  /// Fills all of `buffer` with the bytes that `source` was found for.
  func read(
    _ source: Source, at offset: UInt64, in chain: ImageChain, into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    if case .extent(let found) = source {
      unsafe try chain.read(found, at: start + offset, into: buffer)
    } else {
      unsafe try chain.read(into: buffer, at: start + offset)
    }
  }

  // MARK: Changing

  /// Writes at `offset` what fits, and says how many bytes that were. A disk has an end; nothing is written past it.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) -> Int {
    let end = byteCount
    guard offset < end else { return 0 }
    let count = Int(min(UInt64(bytes.count), end - offset))
    try changing(offset, UInt64(count)) { (chain, position) throws(EngineError) in
      unsafe try chain.write(UnsafeRawBufferPointer(rebasing: bytes[..<count]), at: position)
    }
    return count
  }

  /// Makes bytes read as zeros; what they take is let go of, unless `keepingRoom`.
  func writeZeros(at offset: UInt64, count: UInt64, keepingRoom: Bool) throws(EngineError) {
    try changing(offset, count) { (chain, position) throws(EngineError) in
      try chain.writeZeros(at: position, count: count, keepingRoom: keepingRoom)
    }
  }

  private func changing(
    _ offset: UInt64, _ count: UInt64, _ body: (ImageChain, UInt64) throws(EngineError) -> Void
  ) throws(EngineError) {
    let end = byteCount
    guard offset <= end, count <= end - offset else {
      throw EngineError(.noSpace, "The disk ends at \(end)", offset: offset)
    }
    // Counted before and after: whoever opens another file of the same bytes in between must not keep old ones.
    noteChange()
    defer { noteChange() }
    do throws(EngineError) {
      try withChain { (chain) throws(EngineError) in try body(chain, start + offset) }
    } catch {
      // Somebody has just made the disk smaller.
      guard error.code == .outsideDisk else { throw error }
      throw EngineError(.noSpace, "The disk has become smaller", offset: offset)
    }
  }

  private func noteChange() { use.session.noteChange(file) }

  /// All that was written before is on disk when it returns.
  func flush() throws(EngineError) {
    guard file.view.isWritable else { return }
    try withChain { (chain) throws(EngineError) in try chain.flush() }
  }

  /// Gives the disk another size, rounded up to whole sectors.
  func resize(to byteCount: UInt64) throws(EngineError) {
    let old = self.byteCount
    guard byteCount <= maximumFileOffset - 511 else {
      throw EngineError(.tooLarge, "A file has no more than \(maximumFileOffset) bytes")
    }
    let wanted = byteCount.aligned(upTo: 512)
    if wanted == old { return }
    guard file.view.window == nil else {
      throw .notPermitted("The size of a partition is in the partition table")
    }
    guard wanted > old || use.session.access.mayShrink else {
      throw .notPermitted("The disk gets smaller only with '-o shrink'")
    }
    // What failed may have been done all the same.
    defer { use.session.noteShape(file) }
    try withChain { (chain) throws(EngineError) in try chain.resize(to: wanted) }
  }

  // MARK: Data and holes

  /// Holes are made of whole blocks, as `stat` tells their size: QEMU stops at an assertion where they are not.
  static let blockByteCount: UInt64 = 4096

  /// The first offset from `offset` on that holds data, or that holds none; nil past the last one. Where `seconds` are
  /// not enough, all that was not looked at is data.
  func seek(from offset: UInt64, toData: Bool, seconds: Double = Patience.forAnswer) -> UInt64? {
    let byteCount = byteCount
    guard offset < byteCount else { return nil }
    var patience = Patience(seconds: seconds)
    var position = offset
    while position < byteCount {
      if patience.isOver() { return toData ? position : byteCount }
      let holeEnd = holeEnd(from: position, byteCount, &patience)
      let end = holeEnd < byteCount ? holeEnd - holeEnd % Self.blockByteCount : byteCount
      if end > position {
        if !toData { return position }
        position = end
      } else {
        // Data, or less of a hole than a block.
        if toData { return position }
        let dataEnd = max(holeEnd, position + run(at: position, byteCount).length)
        position = min(byteCount, dataEnd.aligned(upTo: Self.blockByteCount))
      }
    }
    // Every file ends with a hole of no length.
    return toData ? nil : byteCount
  }

  /// Where the hole ends that `start` lies in, as far as there is patience to look; `start` itself where there is none.
  private func holeEnd(from start: UInt64, _ byteCount: UInt64, _ patience: inout Patience) -> UInt64 {
    var position = start
    while position < byteCount, !patience.isOver() {
      let run = run(at: position, byteCount)
      if run.isData { break }
      position += run.length
    }
    return position
  }

  /// Bytes that are not known to be zeros. Where `seconds` are not enough to count them it is not exact: the rest of the
  /// disk is taken to be like what was counted, and never to be nothing, which would mean that no reader has to look.
  func allocatedByteCount(seconds: Double = Patience.forEstimate) -> (count: UInt64, isExact: Bool) {
    let byteCount = byteCount
    guard byteCount > 0 else { return (0, true) }
    var patience = Patience(seconds: seconds)
    var position: UInt64 = 0
    var allocated: UInt64 = 0
    repeat {
      let run = run(at: position, byteCount)
      if run.isData { allocated += run.length }
      position += run.length
    } while position < byteCount && !patience.isOver()
    guard position < byteCount else { return (allocated, true) }
    let guess = UInt64(Double(allocated) / Double(position) * Double(byteCount))
    return (max(guess, Self.blockByteCount), false)
  }

  /// The run of data or of zeros that starts at `position`, which lies inside the disk. Where the
  /// image's tables are damaged there is data: whoever reads it gets the error.
  private func run(at position: UInt64, _ byteCount: UInt64) -> StoredRun {
    let rest = byteCount - position
    do throws(EngineError) {
      return try withChain { (chain) throws(EngineError) in
        let found = try chain.extent(at: start + position, limit: rest)
        return StoredRun(isData: !found.readsAsZeros, length: found.extent.length)
      }
    } catch {
      let clusterSize = try? withChain { (chain) throws(EngineError) in chain.top.clusterSize }
      let unit = max(clusterSize ?? 0, 4096)
      return StoredRun(isData: true, length: min(rest, unit - (start + position) % unit))
    }
  }
}
