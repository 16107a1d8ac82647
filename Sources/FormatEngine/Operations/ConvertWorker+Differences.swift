import Glibc

/// Finds what an image would read otherwise over another backing file.
extension ConvertWorker {
  /// Notes what the image has to store before it comes to lie over `backing`.
  func noteDifferences(in segment: ConvertSegment, from backing: NewBacking, unit: Int) throws(EngineError) {
    try forEachDifference(in: segment, from: backing, unit: unit) { range in
      let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[range])
      let isZero = unsafe ZeroScan.isZero(bytes) && work.marksZeros
      switch (actions.last, isZero) {
      case (.zeros(let last)?, true) where last.upperBound == range.lowerBound:
        actions[actions.count - 1] = .zeros(last.lowerBound..<range.upperBound)
      case (.write(let last)?, false) where last.upperBound == range.lowerBound:
        actions[actions.count - 1] = .write(last.lowerBound..<range.upperBound)
      default: actions.append(isZero ? .zeros(range) : .write(range))
      }
    }
  }

  /// The same for what is stored in whole, packed units: which of them are needed, and their bytes.
  func readDifferingUnits(of segment: ConvertSegment, from backing: NewBacking, unit: Int) throws(EngineError)
  {
    let unitCount = Int(segment.length.dividedRoundingUp(by: UInt64(unit)))
    neededUnits.removeAll(keepingCapacity: true)
    neededUnits.append(contentsOf: repeatElement(false, count: unitCount))
    try forEachDifference(in: segment, from: backing, unit: unit) { neededUnits[$0.lowerBound / unit] = true }
    for index in 0..<unitCount where neededUnits[index] {
      let start = index * unit
      let count = min(unit, Int(segment.length) - start)
      let whole = ConvertSegment(
        number: segment.number, offset: segment.offset + UInt64(start), length: UInt64(count))
      try forEachExtent(of: whole) { (found, range) throws(EngineError) in
        try read(found, start + range.lowerBound..<start + range.upperBound, of: segment)
      }
      unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[start + count..<start + unit])
        .initializeMemory(as: UInt8.self, repeating: 0)
    }
  }

  /// Calls `body` with the pieces that read otherwise over `backing`, each inside one unit; their bytes are in
  /// the buffer.
  private func forEachDifference(
    in segment: ConvertSegment, from backing: NewBacking, unit: Int, _ body: (Range<Int>) -> Void
  ) throws(EngineError) {
    var done: UInt64 = 0
    while done < segment.length {
      let offset = segment.offset + done
      var found = try work.source.extent(at: offset, limit: segment.length - done)
      let idle = try work.idleByteCount(found.located, at: offset)
      if idle > 0 {
        done += idle
        continue
      }
      let new = try backing.locate(at: offset, limit: found.located.extent.length)
      found.located.extent.length = new.extent.length
      let range = Int(done)..<Int(done + new.extent.length)
      try read(found, range, of: segment)
      try readOther(new, of: backing, at: offset, range)
      var start = range.lowerBound
      while start < range.upperBound {
        let end = min((start + 1).aligned(upTo: unit), range.upperBound)
        if !isSame(start..<end, isOtherZero: new.readsAsZeros) { body(start..<end) }
        start = end
      }
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

extension Int {
  fileprivate func aligned(upTo unit: Int) -> Int { (self + unit - 1) / unit * unit }
}
