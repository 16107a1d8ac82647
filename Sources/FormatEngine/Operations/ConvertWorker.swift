/// One thread's buffers, and what it does with a segment: reads and packs it beside the others, then writes
/// it when its turn has come.
final class ConvertWorker {
  /// What the target is to get, by offsets in the segment.
  enum Action {
    /// What is in the buffer; where it also lies, if the target may share those blocks.
    case write(Range<Int>, HostPlace?)
    case zeros(Range<Int>)
    /// As it lies there; it was not read.
    case copy(HostPlace, Range<Int>, HostCopy)
    /// The next piece of the packed bytes.
    case packed(PackedPiece)
  }

  let work: ConvertWork
  let buffer: AlignedBuffer
  /// What the bytes in the buffer are compared with.
  let other: AlignedBuffer
  private let packer: (any ClusterPacker)?
  private let packed: AlignedBuffer
  /// Bytes for one packed unit.
  private let packedRoom: Int
  var actions: [Action] = []
  /// For each unit of the segment in the buffer, whether the target needs it.
  var neededUnits: [Bool] = []
  /// What went wrong when bytes were read that were to be written at that moment.
  var readingFailure: EngineError?

  init(_ work: ConvertWork) throws(EngineError) {
    self.work = work
    buffer = AlignedBuffer(byteCount: Int(work.longestSegmentByteCount))
    other = AlignedBuffer(byteCount: work.newBacking == nil ? 0 : buffer.byteCount)
    packer = try work.packing?.makePacker()
    packedRoom = Int(work.packing?.largestPackedUnit ?? 0)
    let unitCount = work.packing.map { work.segmentByteCount / $0.compressionUnit } ?? 0
    packed = AlignedBuffer(byteCount: Int(unitCount) * packedRoom)
  }

  /// False where other work has failed and this was not written any more.
  func copy(_ segment: ConvertSegment) throws(EngineError) -> Bool {
    actions.removeAll(keepingCapacity: true)
    Trace.emit(.convertSegment, "number \(segment.number) offset \(segment.offset) bytes \(segment.length)")
    if let packing = work.packing, let packer {
      try pack(segment, with: packer, unit: packing.compressionUnit)
    } else {
      try read(segment)
    }
    switch work.writing {
    case .inTurn:
      return try work.turns.take(segment.number) { () throws(EngineError) in try perform(segment) }
    case .oneByOne:
      return try work.turns.takeNext { () throws(EngineError) in try perform(segment) }
    case .atOnce:
      try perform(segment)
      return true
    }
  }

  // MARK: Reading

  /// Reads what the target needs of a segment and notes what is to be done with it.
  private func read(_ segment: ConvertSegment) throws(EngineError) {
    guard work.stream == nil else { return noteRuns(in: 0..<Int(segment.length)) }
    if let backing = work.newBacking {
      return try noteDifferences(in: segment, from: backing, unit: Int(work.storedUnit))
    }
    try forEachExtent(at: segment.offset, length: segment.length) { (found, range) throws(EngineError) in
      if work.needsNothing(found.located) { return }
      if found.located.readsAsZeros, work.options.sparseByteCount > 0 {
        actions.append(.zeros(range))
      } else if let place = work.placeToCopy(found, count: range.count) {
        actions.append(.copy(place, range, .bytes))
      } else {
        let place = work.placeToShare(found, count: range.count)
        if let place, work.hostCopies.works(from: place.file) {
          return try noteSharedRuns(in: range, of: segment, at: place)
        }
        try read(found, range, of: segment)
        noteRuns(in: range, place)
      }
    }
  }

  /// Splits what was read into what is written and what is zeros.
  private func noteRuns(in range: Range<Int>, _ place: HostPlace? = nil) {
    guard work.options.sparseByteCount > 0, work.options.looksForZeros else {
      return actions.append(.write(range, place))
    }
    let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[range])
    unsafe forEachRun(in: bytes, at: range.lowerBound) { (run, isZero) in
      if !isZero {
        actions.append(.write(run, place?.advanced(by: run.lowerBound - range.lowerBound)))
      } else if work.mustWriteZeros {
        actions.append(.zeros(run))
      }
    }
  }

  /// Calls `body` with the runs of zeros and of other bytes; its ranges begin at `start`.
  func forEachRun(
    in bytes: UnsafeRawBufferPointer, at start: Int, _ body: (_ range: Range<Int>, _ isZero: Bool) -> Void
  ) {
    var position = 0
    while position < bytes.count {
      let run = unsafe ZeroScan.run(in: bytes, from: position, block: Int(work.options.sparseByteCount))
      body(start + position..<start + position + run.length, run.isZero)
      position += run.length
    }
  }

  /// Calls `body` with what lies at offsets of all sources taken as one; its ranges begin at `offset`.
  func forEachExtent(
    at offset: UInt64, length: UInt64,
    _ body: (ConcatenatedDisks.Found, Range<Int>) throws(EngineError) -> Void
  ) throws(EngineError) {
    var done: UInt64 = 0
    while done < length {
      let found = try work.extent(at: offset + done, limit: length - done)
      let end = done + found.located.extent.length
      try body(found, Int(done)..<Int(end))
      done = end
    }
  }

  func read(_ found: ConcatenatedDisks.Found, _ range: Range<Int>, of segment: ConvertSegment)
    throws(EngineError)
  {
    let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[range])
    if let salvaged = work.salvaged {
      return unsafe salvaged.read(
        found.disk, at: found.offset, position: segment.offset + UInt64(range.lowerBound), into: piece)
    }
    do throws(EngineError) {
      unsafe try found.disk.read(found.located, at: found.offset, into: piece)
    } catch {
      throw error.inSystemWords.whileTrying(
        work.options.failureWords.reading(at: segment.offset + UInt64(range.lowerBound)))
    }
  }

  // MARK: Packing

  private func pack(_ segment: ConvertSegment, with packer: any ClusterPacker, unit: UInt64)
    throws(EngineError)
  {
    if let backing = work.newBacking {
      try readDifferingUnits(of: segment, from: backing, unit: Int(unit))
    } else {
      try readUnits(segment, unit: unit)
    }
    var packedCount = 0
    for (index, isNeeded) in neededUnits.enumerated() where isNeeded {
      let start = index * Int(unit)
      let whole = unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[start..<start + Int(unit)])
      let range = start..<min(start + Int(unit), Int(segment.length))
      if work.options.sparseByteCount > 0, work.canLeaveOutZeros, !work.mustPackZeros,
        unsafe ZeroScan.isZero(whole)
      {
        if work.mustWriteZeros { actions.append(.zeros(range)) }
        continue
      }
      let room = unsafe UnsafeMutableRawBufferPointer(
        rebasing: packed.bytes[packedCount..<packedCount + packedRoom])
      if mayBeWhole(range, of: segment, unit), let count = unsafe try packer.pack(whole, into: room) {
        actions.append(.packed(PackedPiece(guestOffset: segment.offset + UInt64(start), byteCount: count)))
        packedCount += count
      } else {
        actions.append(.write(range, nil))
      }
    }
  }

  /// Whether the target may get a unit as a whole: what it has behind the end of the source stays.
  private func mayBeWhole(_ range: Range<Int>, of segment: ConvertSegment, _ unit: UInt64) -> Bool {
    range.count == Int(unit) || segment.offset + UInt64(range.upperBound) >= work.target.virtualSize
      || work.options.fitsTarget || work.packing?.unitPacking == .always
  }

  /// Reads a segment into the buffer, its last unit filled up with zeros, and notes which units hold
  /// anything that the target needs.
  private func readUnits(_ segment: ConvertSegment, unit: UInt64) throws(EngineError) {
    let unitCount = Int(segment.length.dividedRoundingUp(by: unit))
    neededUnits.removeAll(keepingCapacity: true)
    neededUnits.append(contentsOf: repeatElement(work.stream != nil, count: unitCount))
    // What comes out of a pipe is read already.
    let length = work.stream == nil ? segment.length : 0
    try forEachExtent(at: segment.offset, length: length) { (found, range) throws(EngineError) in
      try read(found, range, of: segment)
      if work.needsNothing(found.located) { return }
      for index in range.lowerBound / Int(unit)...(range.upperBound - 1) / Int(unit) {
        neededUnits[index] = true
      }
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[Int(segment.length)..<unitCount * Int(unit)])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }

  // MARK: Writing

  private func perform(_ segment: ConvertSegment) throws(EngineError) {
    try work.stream?.makeRoom(for: segment.offset + segment.length)
    var packedStart = 0
    var index = 0
    while index < actions.count {
      switch actions[index] {
      case .write(let range, let place):
        try work.waitForRate(UInt64(range.count))
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[range])
        let original = place.map {
          GivenBytes.Original(place: $0, method: .blocks, results: work.hostCopies)
        }
        try write(unsafe GivenBytes(bytes, original), range, of: segment)
      case .copy(let place, let range, let method):
        try work.waitForRate(UInt64(range.count))
        try write(original(place, method, range, of: segment), range, of: segment)
      case .zeros(let range):
        try writing(segment, range) { (offset) throws(EngineError) in
          try work.target.writeZeros(at: offset, count: UInt64(range.count))
        }
      case .packed:
        let pieces = packedPieces(from: index)
        try work.waitForRate(pieces.reduce(0) { $0 + UInt64($1.byteCount) })
        packedStart = try store(pieces, from: packedStart)
        index += pieces.count - 1
      }
      index += 1
    }
  }

  private func write(_ given: GivenBytes, _ range: Range<Int>, of segment: ConvertSegment)
    throws(EngineError)
  {
    try writing(segment, range) { (offset) throws(EngineError) in
      try work.target.write(given, at: offset)
    }
  }

  /// The packed pieces that follow each other from an action on.
  private func packedPieces(from index: Int) -> [PackedPiece] {
    var pieces: [PackedPiece] = []
    for action in actions[index...] {
      guard case .packed(let piece) = action else { break }
      pieces.append(piece)
    }
    return pieces
  }

  /// Stores pieces whose bytes begin at `start` of the packed buffer, and says where they end.
  private func store(_ pieces: [PackedPiece], from start: Int) throws(EngineError) -> Int {
    let end = pieces.reduce(start) { $0 + $1.byteCount }
    guard let packing = work.packing, let first = pieces.first else { return end }
    do throws(EngineError) {
      unsafe try packing.storeCompressed(
        UnsafeRawBufferPointer(rebasing: packed.bytes[start..<end]), pieces: pieces)
    } catch {
      throw error.inSystemWords.whileTrying(work.options.failureWords.writing(at: first.guestOffset))
    }
    return end
  }

  private func writing(
    _ segment: ConvertSegment, _ range: Range<Int>, _ body: (UInt64) throws(EngineError) -> Void
  ) throws(EngineError) {
    let offset = segment.offset + UInt64(range.lowerBound)
    do throws(EngineError) {
      try body(offset)
    } catch {
      if let readingFailure { throw readingFailure }
      throw error.inSystemWords.whileTrying(work.options.failureWords.writing(at: offset))
    }
  }
}
