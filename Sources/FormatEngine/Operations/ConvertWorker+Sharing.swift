/// Bytes whose blocks of the disk the target shares with the source: they need not pass through here.
extension ConvertWorker {
  /// As `noteRuns`, for bytes that lie at `place` and that nobody has read yet. They are only looked at for zeros.
  func noteSharedRuns(in range: Range<Int>, of segment: ConvertSegment, at place: HostPlace)
    throws(EngineError)
  {
    guard work.options.sparseByteCount > 0, work.options.looksForZeros else {
      return actions.append(.copy(place, range, .blocks))
    }
    // Steps end at the same places of the disk, wherever an extent begins.
    let step = work.sharedUnit < Self.smallestSampledUnit ? Self.scannedByteCount : work.sharedUnit
    var start = range.lowerBound
    while start < range.upperBound {
      let end = min(
        Int((segment.offset + UInt64(start) + 1).raised(to: step) - segment.offset), range.upperBound)
      let piece = Piece(
        range: start..<end, place: place.advanced(by: start - range.lowerBound), segment: segment)
      if step == work.sharedUnit {
        note(piece, isZero: try isZero(piece))
      } else {
        try scan(piece)
      }
      start = end
    }
  }

  /// A part of a segment, and where it lies.
  private struct Piece {
    var range: Range<Int>
    var place: HostPlace
    let segment: ConvertSegment
  }

  /// From here on a look at the beginning of a unit pays: below, as many system calls cost more than reading all.
  private static var smallestSampledUnit: UInt64 { 32 * KiB }
  /// Little enough to stay in the processor's cache.
  private static var scannedByteCount: UInt64 { 128 * KiB }
  /// Most of what is not zero shows it at its beginning.
  private static var sampleByteCount: Int { 512 }

  /// Whether a unit is all zeros. Mostly its beginning tells that it is not.
  private func isZero(_ unit: Piece) throws(EngineError) -> Bool {
    let sample = min(Self.sampleByteCount, unit.range.count)
    guard unsafe try ZeroScan.isZero(read(unit, 0..<sample)) else { return false }
    return unsafe try ZeroScan.isZero(read(unit, sample..<unit.range.count))
  }

  /// Splits a piece into what is zeros and what is not.
  private func scan(_ piece: Piece) throws(EngineError) {
    let bytes = unsafe try read(piece, 0..<piece.range.count)
    var position = 0
    while position < bytes.count {
      let run = unsafe ZeroScan.run(in: bytes, from: position, block: Int(work.options.sparseByteCount))
      let start = piece.range.lowerBound + position
      let part = Piece(
        range: start..<start + run.length, place: piece.place.advanced(by: position), segment: piece.segment)
      note(part, isZero: run.isZero)
      position += run.length
    }
  }

  /// Bytes of a piece, at the beginning of the buffer.
  private func read(_ piece: Piece, _ range: Range<Int>) throws(EngineError) -> UnsafeRawBufferPointer {
    let bytes = unsafe buffer.prefix(range.count)
    do throws(EngineError) {
      unsafe try piece.place.file.read(into: bytes, at: piece.place.offset + UInt64(range.lowerBound))
    } catch {
      let offset = piece.segment.offset + UInt64(piece.range.lowerBound + range.lowerBound)
      throw error.inSystemWords.whileTrying(work.options.failureWords.reading(at: offset))
    }
    return UnsafeRawBufferPointer(bytes)
  }

  /// What follows the last piece is one with it.
  private func note(_ piece: Piece, isZero: Bool) {
    if isZero {
      if work.mustWriteZeros { actions.append(.zeros(piece.range)) }
    } else if case .copy(let place, let last, .blocks)? = actions.last,
      last.upperBound == piece.range.lowerBound,
      place.file === piece.place.file, place.advanced(by: last.count).offset == piece.place.offset
    {
      actions[actions.count - 1] = .copy(place, last.lowerBound..<piece.range.upperBound, .blocks)
    } else {
      actions.append(.copy(piece.place, piece.range, .blocks))
    }
  }
}
