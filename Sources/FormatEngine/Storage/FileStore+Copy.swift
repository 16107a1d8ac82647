internal import CLinux
import Glibc
import Synchronization

/// How the host moves bytes from file to file by itself.
enum HostCopy {
  /// copy_file_range: in the way that the file systems like best.
  case bytes
  /// FICLONERANGE: both files have the same blocks of the disk afterwards, until one of them is written to.
  case blocks
}

extension FileStore {
  /// Has the host copy `count` bytes of another file to `offset`. Says which bytes are done; the others are still to be
  /// written. Nil where these files, or the ways they are opened in, do not allow it.
  ///
  /// Of blocks only whole ones can be shared, between files of one file system, and not past the end of the other file.
  /// What that has not brought to disk yet is written there first.
  func copy(from place: HostPlace, to offset: UInt64, count: UInt64, by method: HostCopy) -> Range<UInt64>? {
    // Past the page cache, and through to the disk, each write has its own way.
    guard !isDirect, !place.file.isDirect, !cache.writesThrough, count <= maximumFileOffset,
      place.offset <= maximumFileOffset - count, offset <= maximumFileOffset - count
    else { return nil }
    let result =
      switch method {
      case .bytes: copyBytes(from: place, to: offset, count: count)
      case .blocks: shareBlocks(from: place, to: offset, count: count)
      }
    guard let done = result, !done.isEmpty else { return result }
    noteChange()
    knownEnd.max(done.upperBound, ordering: .acquiringAndReleasing)
    Trace.emit(
      .storeCopy,
      "path \"\(path)\" offset \(done.lowerBound) bytes \(done.upperBound - done.lowerBound) "
        + "source \"\(place.file.path)\" source-offset \(place.offset + (done.lowerBound - offset))")
    return done
  }

  private func copyBytes(from place: HostPlace, to offset: UInt64, count: UInt64) -> Range<UInt64>? {
    var (from, to, left) = (off_t(place.offset), off_t(offset), Int(count))
    while left > 0 {
      let done = retrying {
        unsafe copy_file_range(place.file.descriptor.number, &from, descriptor.number, &to, left, 0)
      }
      if done < 0 && left == Int(count) { return nil }
      guard done > 0 else { break }
      left -= done
    }
    return offset..<offset + count - UInt64(left)
  }

  /// What file systems share is whole blocks; none that can has larger ones by default.
  private static let sharedUnit: UInt64 = 4096

  private func shareBlocks(from place: HostPlace, to offset: UInt64, count: UInt64) -> Range<UInt64>? {
    let start = offset.aligned(upTo: Self.sharedUnit)
    let sourceEnd = place.file.knownEnd.load(ordering: .acquiring)
    let stored = sourceEnd > place.offset ? min(count, sourceEnd - place.offset) : 0
    let end = (offset + stored).aligned(downTo: Self.sharedUnit)
    guard start < end else { return offset..<offset }
    let source = place.offset + (start - offset)
    guard source.isAligned(to: Self.sharedUnit), kind == .regular, place.file.kind == .regular
    else { return nil }
    let result = retrying {
      imgfs_clone_range(place.file.descriptor.number, source, descriptor.number, start, end - start)
    }
    return result == 0 ? start..<end : nil
  }
}
