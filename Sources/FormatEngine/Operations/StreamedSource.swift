/// A disk that comes out of a pipe on its way into a target, which grows with it where nobody knew its size.
final class StreamedSource: @unchecked Sendable {
  // @unchecked: read in the lock of `ConvertWork`'s cursor, and after all workers have ended; `makeRoom` uses constants.
  private let disk: any SequentialDisk
  private let target: ImageChain
  private let fitsTarget: Bool
  /// What of the disk is copied.
  private let part: Range<UInt64>
  /// Bytes of the part that were passed over or read; nil before the first.
  private var done: UInt64?

  /// Bytes that are copied, nil where only the end of the pipe tells.
  let byteCount: UInt64?

  init(_ disk: any SequentialDisk, _ target: ImageChain, _ options: ConvertOptions) {
    self.disk = disk
    self.target = target
    fitsTarget = options.fitsTarget
    part = options.part ?? 0..<UInt64.max
    byteCount = disk.virtualSize.map { [part] in
      part.clamped(to: 0..<$0).upperBound - part.clamped(to: 0..<$0).lowerBound
    }
  }

  func whileWaiting(_ proceed: @escaping @Sendable () throws(EngineError) -> Void) {
    disk.whileWaiting(proceed)
  }

  /// Bytes of the part that are left at most, behind what comes before the part.
  private func left() throws(EngineError) -> UInt64 {
    guard let done else {
      let skipped = try disk.skip(part.lowerBound)
      guard skipped == part.lowerBound else { throw .invalid("cannot skip to specified offset") }
      done = 0
      return part.upperBound - part.lowerBound
    }
    return part.upperBound - part.lowerBound - done
  }

  /// Passes over zeros that are known to come next, up to a multiple of `unit` or the end, and says how many.
  func skipZeros(wholeUnitsOf unit: UInt64) throws(EngineError) -> UInt64 {
    let left = try left()
    let start = done ?? 0
    let zeros = min(try disk.zeroRun(), left)
    guard zeros > 0 else { return 0 }
    let isToEnd = start + zeros == byteCount
    let count =
      isToEnd ? zeros : (start + zeros).floored(to: unit) - min(start, (start + zeros).floored(to: unit))
    done = start + (try disk.skip(count))
    return count
  }

  /// Fills `buffer`, or what of it the disk still has, in whole sectors, and says how many bytes that is: 0 at the end.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(EngineError) -> UInt64 {
    let wanted = Int(min(UInt64(buffer.count), try left()))
    let start = done ?? 0
    let got = unsafe try disk.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted]))
    done = start + UInt64(got)
    let whole = min(buffer.count, Int(UInt64(got).aligned(upTo: 512)))
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[got..<whole])
      .initializeMemory(as: UInt8.self, repeating: 0)
    return UInt64(whole)
  }

  // MARK: The target's size

  /// Makes the target large enough, while nobody writes to it. Larger steps for larger disks: each of them may move
  /// tables.
  func makeRoom(for end: UInt64) throws(EngineError) {
    guard end > target.virtualSize else { return }
    guard fitsTarget, let layer = target.top as? any Resizable else {
      throw .invalid("output file is smaller than input file")
    }
    let size = layer.canShrink ? max(end, target.virtualSize * 2) : end
    do throws(EngineError) {
      try target.resize(to: size)
    } catch {
      // The largest size of a format may lie between the two.
      guard size > end else { throw error }
      try target.resize(to: end)
    }
  }

  /// What comes behind the last byte is looked at, and the target gets its final size.
  func finish() throws(EngineError) {
    _ = try left()
    if part.upperBound >= disk.virtualSize ?? UInt64.max { try disk.finish() }
    let end = (done ?? 0).aligned(upTo: 512)
    // A device is as long as it is.
    let isDevice =
      target.members[0].file.isDevice && target.top.clusterSize == 0
    if fitsTarget, !isDevice, end != target.virtualSize, byteCount == nil { try target.resize(to: end) }
  }
}
