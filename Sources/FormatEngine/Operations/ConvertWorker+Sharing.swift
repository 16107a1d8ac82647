/// Bytes that the host copies by itself: they need not pass through here.
extension ConvertWorker {
  /// As `noteRuns`, for bytes that lie at `place`, whose blocks the target shares, and that nobody has read yet. They are
  /// only looked at for zeros.
  func noteSharedRuns(in range: Range<Int>, of segment: ConvertSegment, at place: HostPlace)
    throws(EngineError)
  {
    guard work.options.looksForZeros else { return actions.append(.copy(place, range, .blocks)) }
    // Steps end at the same places of the disk, wherever an extent begins.
    let step = work.sharedUnit < Self.smallestSampledUnit ? Self.scannedByteCount : work.sharedUnit
    var start = range.lowerBound
    while start < range.upperBound {
      let end = min(
        Int((segment.offset + UInt64(start) + 1).raised(to: step) - segment.offset), range.upperBound)
      let piece = Original(place: place, of: range, in: segment).piece(start..<end)
      if step == work.sharedUnit {
        note(piece, isZero: try isZero(piece))
      } else {
        let bytes = unsafe try read(piece, 0..<piece.range.count)
        unsafe forEachRun(in: bytes, at: start) { (run, isZero) in note(piece.piece(run), isZero: isZero) }
      }
      start = end
    }
  }

  /// What the target gets by way of the host; what that does not copy is read then.
  func original(_ place: HostPlace, _ method: HostCopy, _ range: Range<Int>, of segment: ConvertSegment)
    -> GivenBytes
  {
    let piece = Original(place: place, of: range, in: segment)
    return unsafe GivenBytes(
      count: range.count, .init(place: place, method: method, results: work.hostCopies)
    ) { [self] (part) throws(EngineError) in
      unsafe try read(piece, part)
    }
  }

  /// A part of a segment, and where it lies.
  private struct Original {
    let place: HostPlace
    let range: Range<Int>
    let segment: ConvertSegment

    init(place: HostPlace, of range: Range<Int>, in segment: ConvertSegment) {
      (self.place, self.range, self.segment) = (place, range, segment)
    }

    /// `part`: in the segment, inside of this one.
    func piece(_ part: Range<Int>) -> Original {
      Original(place: place.advanced(by: part.lowerBound - range.lowerBound), of: part, in: segment)
    }
  }

  /// From here on a look at the beginning of a unit pays: below, as many system calls cost more than reading all.
  static var smallestSampledUnit: UInt64 { 32 * KiB }
  /// Else so many bytes are read at a time.
  private static var scannedByteCount: UInt64 { 128 * KiB }
  /// Most of what is not zero shows it at its beginning.
  private static var sampleByteCount: Int { 512 }

  /// Whether a unit is all zeros. Mostly its beginning tells that it is not.
  private func isZero(_ unit: Original) throws(EngineError) -> Bool {
    let sample = min(Self.sampleByteCount, unit.range.count)
    guard unsafe try ZeroScan.isZero(read(unit, 0..<sample)) else { return false }
    return unsafe try ZeroScan.isZero(read(unit, sample..<unit.range.count))
  }

  /// Bytes of a piece, in their own place of the buffer: elsewhere in it others wait to be written.
  private func read(_ piece: Original, _ part: Range<Int>) throws(EngineError) -> UnsafeRawBufferPointer {
    let start = piece.range.lowerBound + part.lowerBound
    let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[start..<start + part.count])
    do throws(EngineError) {
      unsafe try piece.place.file.read(into: bytes, at: piece.place.offset + UInt64(part.lowerBound))
    } catch {
      let words = work.options.failureWords.reading(at: piece.segment.offset + UInt64(start))
      let failure = error.inSystemWords.whileTrying(words)
      readingFailure = failure
      throw failure
    }
    return UnsafeRawBufferPointer(bytes)
  }

  /// What follows the last piece is one with it.
  private func note(_ piece: Original, isZero: Bool) {
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
