internal import CLinux
import Glibc
import Synchronization

extension FileStore {
  /// Has the host copy bytes of another file into this one, where both file systems can: between files of one of them that
  /// may cost nothing. False where it did not, or not all of it; then the bytes are still to be written.
  func copy(from source: FileStore, at sourceOffset: UInt64, to offset: UInt64, count: UInt64) -> Bool {
    // Past the page cache, and through to the disk, each write has its own way.
    guard !isDirect, !source.isDirect, !cache.writesThrough, count <= maximumFileOffset,
      sourceOffset <= maximumFileOffset - count, offset <= maximumFileOffset - count
    else { return false }
    var (from, to, left) = (off_t(sourceOffset), off_t(offset), Int(count))
    while left > 0 {
      let done = retrying {
        unsafe copy_file_range(source.descriptor.number, &from, descriptor.number, &to, left, 0)
      }
      guard done > 0 else { return false }
      left -= done
    }
    knownEnd.max(offset + count, ordering: .acquiringAndReleasing)
    Trace.emit(
      .storeCopy,
      "path \"\(path)\" offset \(offset) bytes \(count) source \"\(source.path)\" source-offset \(sourceOffset)"
    )
    return true
  }

  /// Writes bytes that lie at `place`; `bytes` are the same, where they are in memory already.
  func write(
    from place: HostPlace, _ bytes: UnsafeRawBufferPointer?, at offset: UInt64, count: Int,
    by method: HostCopy
  ) throws(EngineError) {
    let end = offset + UInt64(count)
    let done =
      switch method {
      case .bytes:
        copy(from: place.file, at: place.offset, to: offset, count: UInt64(count)) ? offset..<end : nil
      case .blocks: share(from: place, to: offset..<end)
      }
    for rest in [offset..<(done?.lowerBound ?? end), (done?.upperBound ?? end)..<end] where !rest.isEmpty {
      let start = Int(rest.lowerBound - offset)
      if let bytes = unsafe bytes {
        // SAFETY: `rest` lies inside of what is written.
        unsafe try write(
          .init(rebasing: bytes[start..<start + Int(rest.upperBound - rest.lowerBound)]), at: rest.lowerBound)
      } else {
        try write(from: place.advanced(by: start), to: rest)
      }
    }
  }

  /// The bytes go by way of a buffer.
  private func write(from place: HostPlace, to range: Range<UInt64>) throws(EngineError) {
    let buffer = AlignedBuffer(byteCount: Int(min(range.upperBound - range.lowerBound, 256 * KiB)))
    var position = range.lowerBound
    while position < range.upperBound {
      let piece = unsafe buffer.prefix(Int(min(range.upperBound - position, UInt64(buffer.byteCount))))
      unsafe try place.file.read(into: piece, at: place.offset + (position - range.lowerBound))
      unsafe try write(UnsafeRawBufferPointer(piece), at: position)
      position += UInt64(piece.count)
    }
  }

  /// What file systems share is whole blocks; none that can has larger ones by default.
  private static let sharedUnit: UInt64 = 4096

  /// Has the whole blocks of `range` stand for the same blocks of the disk as those at `place`, where both files are of one file
  /// system that can. What the other file has not brought to disk yet is written there first. Says which bytes are done; nil: none.
  private func share(from place: HostPlace, to range: Range<UInt64>) -> Range<UInt64>? {
    let source = place.file
    guard sharing.load(ordering: .relaxed) != .refused, !isDirect, !source.isDirect, !cache.writesThrough,
      kind == .regular, source.kind == .regular
    else { return nil }
    let start = range.lowerBound.aligned(upTo: Self.sharedUnit)
    let end = range.upperBound.aligned(downTo: Self.sharedUnit)
    let sourceStart = place.offset + (start - range.lowerBound)
    guard start < end, sourceStart.isAligned(to: Self.sharedUnit) else { return nil }
    let isDone =
      retrying {
        imgfs_clone_range(source.descriptor.number, sourceStart, descriptor.number, start, end - start)
      } == 0
    sharing.store(isDone ? .works : .refused, ordering: .relaxed)
    guard isDone else { return nil }
    noteChange()
    knownEnd.max(end, ordering: .acquiringAndReleasing)
    Trace.emit(
      .storeCopy,
      "path \"\(path)\" offset \(start) bytes \(end - start) source \"\(source.path)\" source-offset \(sourceStart)"
    )
    return start..<end
  }
}

/// How the host moves bytes from file to file by itself.
enum HostCopy {
  /// copy_file_range: in the way that the file systems like best.
  case bytes
  /// FICLONERANGE: both files have the same blocks of the disk afterwards, until one of them is written to.
  case blocks
}

/// Whether a file has been able to share blocks with others.
enum BlockSharing: UInt8, AtomicRepresentable {
  case unknown
  case works
  /// It is not tried again.
  case refused
}
