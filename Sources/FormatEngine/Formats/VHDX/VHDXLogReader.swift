/// Finds in the log what may not be in its place yet ([MS-VHDX] 2.3.2, 2.3.3).
struct VHDXLogReader {
  /// A change that is to be made, in the order of the log.
  struct Change: Equatable, Sendable {
    var hostOffset: UInt64
    var length: UInt64
    /// Where the sector of the log is that has the data, with the descriptor's bytes; nil: zeros.
    var source: Source?

    struct Source: Equatable, Sendable {
      var logSectorOffset: UInt64
      var leading: UInt64
      var trailing: UInt32
    }
  }

  /// The active sequence: what is to be replayed.
  struct Sequence: Sendable {
    var changes: [Change] = []
    /// The file's length once all is in its place, at least.
    var lastFileOffset: UInt64 = 0
    /// The file's length when it was logged, at least.
    var flushedFileOffset: UInt64 = 0
  }

  private struct Entry {
    var header: VHDXLogEntryHeader
    /// In the log, in sectors.
    var start: UInt64
    var descriptors: [VHDXLogDescriptor]
  }

  private let file: any ByteStore
  private let header: VHDXHeader
  private let sectorCount: UInt64
  /// Sectors that may be looked at: a hostile log has entries in entries.
  private var budget: UInt64
  /// A piece of the log, from sector `windowStart` on.
  private var window: [UInt8] = []
  private var windowStart: UInt64 = 0

  private static let sector = UInt64(VHDXLogEntryHeader.sectorByteCount)
  private static let windowSectors: UInt64 = 64
  /// Sixteen times as many as a log of 1 MiB has room for, which is what programs make unless told otherwise. Each takes
  /// some hundred bytes of memory.
  private static let maximumChanges = 1 << 19

  init(_ file: any ByteStore, _ header: VHDXHeader) {
    self.file = file
    self.header = header
    sectorCount = UInt64(header.logLength) / Self.sector
    // Entries of former laps may have lost their ends: each costs its length. One GiB is far more than that.
    budget = sectorCount * 4 + GiB / Self.sector
  }

  /// The sequence of entries that ends with the highest number, from its tail on.
  mutating func activeSequence() throws(EngineError) -> Sequence {
    var best: [Entry] = []
    var start: UInt64 = 0
    while start < sectorCount {
      let run = try run(from: start)
      guard let last = run.last else {
        start += 1
        continue
      }
      let tail = UInt64(last.header.tail) / Self.sector
      if let first = run.firstIndex(where: { $0.start == tail }) {
        if last.header.sequenceNumber > best.last?.header.sequenceNumber ?? 0 { best = Array(run[first...]) }
        start = max(start + 1, last.start + UInt64(last.header.length) / Self.sector)
        // Around the end of the log: the next round would come by what it has seen.
        if last.start < start, last.start < run[0].start { break }
      } else {
        start += 1
      }
    }
    guard let last = best.last else {
      throw .corrupt("The VHDX log is in use, and has no valid entry")
    }
    return try sequence(of: best, last.header)
  }

  private func sequence(of entries: [Entry], _ last: VHDXLogEntryHeader) throws(EngineError) -> Sequence {
    var sequence = Sequence()
    sequence.lastFileOffset = last.lastFileOffset
    sequence.flushedFileOffset = last.flushedFileOffset
    for entry in entries {
      var dataSector = entry.start + UInt64(entry.header.descriptorSectors)
      for descriptor in entry.descriptors {
        var change = Change(hostOffset: descriptor.hostOffset, length: descriptor.length)
        if case .data(let leading, let trailing) = descriptor.content {
          change.source = Change.Source(
            logSectorOffset: header.logOffset + dataSector % sectorCount * Self.sector, leading: leading,
            trailing: trailing)
          dataSector += 1
        }
        try check(change, last)
        if change.length > 0 { sequence.changes.append(change) }
      }
    }
    return sequence
  }

  /// Neither the headers nor the log itself are changed by the log.
  private func check(_ change: Change, _ last: VHDXLogEntryHeader) throws(EngineError) {
    let end = try change.hostOffset.adding(change.length, orCorrupt: "end of a change in the VHDX log")
    let log = header.logRange
    guard change.hostOffset.isAligned(to: Self.sector), change.length.isAligned(to: Self.sector),
      change.hostOffset >= VHDXHeader.sectionEnd, end <= max(last.lastFileOffset, last.flushedFileOffset),
      end <= log.lowerBound || change.hostOffset >= log.upperBound || change.length == 0
    else { throw .corrupt("The VHDX log changes what it cannot", at: change.hostOffset) }
  }

  // MARK: Entries

  private func requireLimit(_ changeCount: Int) throws(EngineError) {
    guard changeCount <= Self.maximumChanges else {
      throw EngineError(.tooLarge, "The VHDX log has more than \(Self.maximumChanges) changes")
    }
  }

  /// Entries from `start` on with consecutive numbers, around the end of the log.
  private mutating func run(from start: UInt64) throws(EngineError) -> [Entry] {
    var run: [Entry] = []
    var (position, length): (UInt64, UInt64) = (start, 0)
    var changeCount = 0
    while let next = try entry(at: position, after: run.last) {
      let sectors = UInt64(next.header.length) / Self.sector
      length += sectors
      // More than the log has room for would begin to repeat.
      guard length <= sectorCount else { break }
      changeCount += next.descriptors.count
      try requireLimit(changeCount)
      run.append(next)
      position = (position + sectors) % sectorCount
    }
    return run
  }

  /// The valid entry that begins at a sector of the log, if one does.
  private mutating func entry(at start: UInt64, after previous: Entry?) throws(EngineError) -> Entry? {
    let (guid, byteCount) = (header.logGuid, UInt64(header.logLength))
    let parsed = try withSector(start) { (span, offset) throws(EngineError) in
      try VHDXLogEntryHeader.parse(span, at: offset, logByteCount: byteCount)
    }
    guard let head = parsed, head.logGuid == guid else { return nil }
    if let previous {
      let (expected, overflow) = previous.header.sequenceNumber.addingReportingOverflow(1)
      guard !overflow, head.sequenceNumber == expected else { return nil }
    }
    var found = Entry(header: head, start: start, descriptors: [])
    guard try check(&found) else { return nil }
    return found
  }

  /// Goes over all sectors of an entry: its checksum, descriptors and data sectors.
  private mutating func check(_ entry: inout Entry) throws(EngineError) -> Bool {
    let head = entry.header
    var sum = CRC32C()
    let sectors = UInt64(head.length) / Self.sector
    for index in 0..<sectors {
      let isDescriptors = index < UInt64(head.descriptorSectors)
      var found: [VHDXLogDescriptor] = []
      let left = Int(head.descriptorCount) - entry.descriptors.count
      let isValid = try withSector((entry.start + index) % sectorCount) {
        (span, offset) throws(EngineError) -> Bool in
        var bytes = try span.bytes(in: offset..<offset + Int(Self.sector))
        if index == 0 { for position in 4..<8 { bytes[position] = 0 } }
        sum.add(bytes)
        guard isDescriptors else {
          return try VHDXLogDataSector.isValid(span, at: offset, sequenceNumber: head.sequenceNumber)
        }
        let first = index == 0 ? VHDXLogEntryHeader.byteCount : 0
        let room = (Int(Self.sector) - first) / VHDXLogDescriptor.byteCount
        for number in 0..<min(room, left) {
          let position = offset + first + number * VHDXLogDescriptor.byteCount
          guard let next = try VHDXLogDescriptor.parse(span, at: position),
            next.sequenceNumber == head.sequenceNumber
          else { return false }
          found.append(next)
        }
        return true
      }
      guard isValid else { return false }
      entry.descriptors += found
    }
    let dataCount = entry.descriptors.count { $0.hasData }
    return sum.value == head.checksum && UInt64(head.descriptorSectors) + UInt64(dataCount) <= sectors
  }

  private mutating func withSector<T>(_ index: UInt64, _ body: (RawSpan, Int) throws(EngineError) -> T)
    throws(EngineError) -> T
  {
    guard budget > 0 else { throw .corrupt("The VHDX log cannot be made sense of") }
    budget -= 1
    if index < windowStart || index >= windowStart + UInt64(window.count) / Self.sector {
      let count = min(Self.windowSectors, sectorCount - index)
      window = try file.bytes(at: header.logOffset + index * Self.sector, count: Int(count * Self.sector))
      windowStart = index
    }
    let offset = Int((index - windowStart) * Self.sector)
    return try window.parsed { (span) throws(EngineError) in try body(span, offset) }
  }
}
