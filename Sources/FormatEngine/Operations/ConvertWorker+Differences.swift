import Glibc

/// Finds what an image would read otherwise over another backing file.
extension ConvertWorker {
  /// Notes what the image has to store before it comes to lie over `backing`.
  func noteDifferences(in segment: ConvertSegment, from backing: NewBacking, unit: Int) throws(EngineError) {
    let oldEnd = work.target.members.count > 1 ? work.target.members[1].layer.virtualSize : 0
    try readDifferingUnits(of: segment, from: backing, unit: unit)
    for (index, isNeeded) in neededUnits.enumerated() where isNeeded {
      let range = index * unit..<min((index + 1) * unit, Int(segment.length))
      // As qemu-img has it: only what lies past the end of the old backing file becomes zeros in the tables.
      let isZero = work.marksZeros && segment.offset + UInt64(range.lowerBound) >= oldEnd
      switch (actions.last, isZero) {
      case (.zeros(let last)?, true) where last.upperBound == range.lowerBound:
        actions[actions.count - 1] = .zeros(last.lowerBound..<range.upperBound)
      case (.write(let last, _)?, false) where last.upperBound == range.lowerBound:
        actions[actions.count - 1] = .write(last.lowerBound..<range.upperBound, nil)
      default: actions.append(isZero ? .zeros(range) : .write(range, nil))
      }
    }
  }

  /// Notes which units of a segment read otherwise over `backing`; the bytes of those, up to whole units, are in
  /// the buffer afterwards.
  func readDifferingUnits(of segment: ConvertSegment, from backing: NewBacking, unit: Int) throws(EngineError)
  {
    let unitCount = Int(segment.length.dividedRoundingUp(by: UInt64(unit)))
    neededUnits.removeAll(keepingCapacity: true)
    neededUnits.append(contentsOf: repeatElement(false, count: unitCount))
    // A unit of which a part was passed over is read once more, whole.
    var partialUnits: Set<Int> = []
    try compare(segment, with: backing) { (range, isRead, isOtherZero) in
      for index in range.lowerBound / unit...(range.upperBound - 1) / unit {
        let piece = max(range.lowerBound, index * unit)..<min(range.upperBound, (index + 1) * unit)
        if !isRead && piece.count < unit { partialUnits.insert(index) }
        if isRead && !isSame(piece, isOtherZero: isOtherZero) { neededUnits[index] = true }
      }
    }
    for index in 0..<unitCount where neededUnits[index] {
      let range = index * unit..<min((index + 1) * unit, Int(segment.length))
      if partialUnits.contains(index) { try readWhole(range, of: segment) }
      if range.count < unit {
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[range.upperBound..<(index + 1) * unit])
          .initializeMemory(as: UInt8.self, repeating: 0)
      }
    }
  }

  private func readWhole(_ range: Range<Int>, of segment: ConvertSegment) throws(EngineError) {
    let start = range.lowerBound
    try forEachExtent(at: segment.offset + UInt64(start), length: UInt64(range.count)) {
      (found, place) throws(EngineError) in
      try read(found, start + place.lowerBound..<start + place.upperBound, of: segment)
    }
  }

  /// Little enough that what was read of both is still in the processor's cache when it is compared.
  private static var comparedByteCount: UInt64 { 256 * KiB }

  /// Calls `body` with the pieces of a segment. What may differ is read, into the buffer and into the other one,
  /// but for what is known to be zeros there.
  private func compare(
    _ segment: ConvertSegment, with backing: NewBacking,
    _ body: (_ range: Range<Int>, _ isRead: Bool, _ isOtherZero: Bool) -> Void
  ) throws(EngineError) {
    var done: UInt64 = 0
    while done < segment.length {
      let offset = segment.offset + done
      var found = try work.source.extent(at: offset, limit: segment.length - done)
      let idle = try work.idleByteCount(found.located, at: offset)
      if idle > 0 {
        body(Int(done)..<Int(done + idle), false, false)
        done += idle
        continue
      }
      let new = try backing.locate(
        at: offset, limit: min(found.located.extent.length, Self.comparedByteCount))
      found.located.extent.length = new.extent.length
      let range = Int(done)..<Int(done + new.extent.length)
      try read(found, range, of: segment)
      try readOther(new, of: backing, at: offset, range)
      body(range, true, new.readsAsZeros)
      done += new.extent.length
    }
  }

  private func readOther(_ new: LocatedExtent, of backing: NewBacking, at offset: UInt64, _ range: Range<Int>)
    throws(EngineError)
  {
    guard !new.readsAsZeros, let disk = backing.disk else { return }
    let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: other.bytes[range])
    do throws(EngineError) {
      unsafe try disk.read(new, at: offset, into: piece)
    } catch {
      throw error.whileTrying("error while reading from new backing file")
    }
  }

  private func isSame(_ range: Range<Int>, isOtherZero: Bool) -> Bool {
    let old = unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[range])
    if isOtherZero { return unsafe ZeroScan.isZero(old) }
    // SAFETY: both buffers are as long as a segment, and the range lies in the segment.
    guard let a = old.baseAddress,
      let b = unsafe UnsafeRawBufferPointer(rebasing: other.bytes[range]).baseAddress
    else { return true }
    return unsafe memcmp(a, b, range.count) == 0
  }
}
