/// Puts into their places what a log that was not closed has ([MS-VHDX] 2.3.3).
enum VHDXReplay {
  /// Into the file, and marks the log as empty. Gives the header as it is then.
  static func run(
    _ sequence: VHDXLogReader.Sequence, in file: any ByteStore, _ headers: VHDXHeaderWriter,
    _ progress: Progress
  ) throws(EngineError) {
    try requireWhole(sequence, file)
    if try file.byteCount() < sequence.lastFileOffset { try file.resize(to: sequence.lastFileOffset) }
    for (index, change) in sequence.changes.enumerated() {
      try progress.step(UInt64(index), of: UInt64(sequence.changes.count))
      if let page = try change.page(from: file) {
        try file.write(bytes: page, at: change.hostOffset)
      } else {
        try file.writeZeros(at: change.hostOffset, count: change.length, freeing: true)
      }
    }
    try file.flush()
    try headers.update { $0.logGuid = .zero }
  }

  /// In memory: the file as it would be.
  static func overlay(_ sequence: VHDXLogReader.Sequence, over file: any ByteStore) throws(EngineError)
    -> any ByteStore
  {
    try requireWhole(sequence, file)
    let byteCount = max(try file.byteCount(), sequence.lastFileOffset)
    return VHDXReplayedStore(file, sequence.changes, byteCount: byteCount)
  }

  private static func requireWhole(_ sequence: VHDXLogReader.Sequence, _ file: any ByteStore)
    throws(EngineError)
  {
    guard sequence.lastFileOffset <= VHDXImage.maximumFileByteCount else {
      throw .corrupt("The VHDX log makes the file too long")
    }
    guard try file.byteCount() >= sequence.flushedFileOffset else {
      throw .corrupt("The image file is shorter than its VHDX log says: it has been truncated")
    }
  }
}

extension VHDXLogReader.Change {
  /// The 4 KiB that are to stand at `hostOffset`, nil for zeros.
  func page(from file: any ByteStore) throws(EngineError) -> [UInt8]? {
    guard let source else { return nil }
    let sector = try file.bytes(at: source.logSectorOffset, count: VHDXLogEntryHeader.sectorByteCount)
    return VHDXLogDataSector.restored(sector, leading: source.leading, trailing: source.trailing)
  }
}

/// A file that is read as if its log had been replayed; nothing is written to it.
final class VHDXReplayedStore: ByteStore {
  private struct Segment {
    var range: Range<UInt64>
    /// Index of the change that has the last word there.
    var change: Int
  }

  private let base: any ByteStore
  private let changes: [VHDXLogReader.Change]
  /// Sorted, apart from each other.
  private let segments: [Segment]
  private let size: UInt64

  init(_ base: any ByteStore, _ changes: [VHDXLogReader.Change], byteCount: UInt64) {
    self.base = base
    self.changes = changes
    size = byteCount
    segments = Self.segments(of: changes)
  }

  /// Cuts the file at the borders of all changes; of those that cover a piece, the newest counts.
  private static func segments(of changes: [VHDXLogReader.Change]) -> [Segment] {
    let order = changes.indices.sorted { changes[$0].hostOffset < changes[$1].hostOffset }
    let borders = Set(changes.flatMap { [$0.hostOffset, $0.hostOffset + $0.length] }).sorted()
    var segments: [Segment] = []
    // Newest first: the heap gives the lowest number.
    var covering = LowestFirst()
    var next = 0
    for (start, end) in zip(borders, borders.dropFirst()) {
      while next < order.count, changes[order[next]].hostOffset <= start {
        covering.insert(UInt64.max - UInt64(order[next]))
        next += 1
      }
      while let newest = covering.lowest {
        let index = Int(UInt64.max - newest)
        if changes[index].hostOffset + changes[index].length > start {
          segments.append(Segment(range: start..<end, change: index))
          break
        }
        _ = covering.popLowest()
      }
    }
    return segments
  }

  var isWritable: Bool { false }
  var spliceDescriptor: CInt? { nil }
  func byteCount() throws(EngineError) -> UInt64 { size }
  func allocatedByteCount() throws(EngineError) -> UInt64 { try base.allocatedByteCount() }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe try base.read(into: buffer, at: offset)
    let (end, overflow) = offset.addingReportingOverflow(UInt64(buffer.count))
    guard !overflow else { return }
    var index = firstSegment(endingAfter: offset)
    while index < segments.count, segments[index].range.lowerBound < end {
      let segment = segments[index]
      let part = max(segment.range.lowerBound, offset)..<min(segment.range.upperBound, end)
      // SAFETY: `part` lies inside what was asked for.
      let target = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(part.lowerBound - offset)..<Int(part.upperBound - offset)])
      let change = changes[segment.change]
      if let page = try change.page(from: base) {
        let first = Int(part.lowerBound - change.hostOffset)
        unsafe target.copyBytes(from: page[first..<first + target.count])
      } else {
        unsafe target.initializeMemory(as: UInt8.self, repeating: 0)
      }
      index += 1
    }
  }

  private func firstSegment(endingAfter offset: UInt64) -> Int {
    var (low, high) = (0, segments.count)
    while low < high {
      let middle = (low + high) / 2
      if segments[middle].range.upperBound > offset { high = middle } else { low = middle + 1 }
    }
    return low
  }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    let index = firstSegment(endingAfter: offset)
    guard index < segments.count else { return try base.run(at: offset, limit: limit) }
    let segment = segments[index].range
    guard segment.lowerBound > offset else {
      return StoredRun(isData: true, length: min(limit, segment.upperBound - offset))
    }
    return try base.run(at: offset, limit: min(limit, segment.lowerBound - offset))
  }

  private static let isReadOnly = EngineError(.readOnly, "A log that is replayed in memory is only read")

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) { throw Self.isReadOnly }
  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    throw Self.isReadOnly
  }
  func forget(at offset: UInt64, count: UInt64) {}
  func resize(to byteCount: UInt64) throws(EngineError) { throw Self.isReadOnly }
  func flush() throws(EngineError) {}
}
