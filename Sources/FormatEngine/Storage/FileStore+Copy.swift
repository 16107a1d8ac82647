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
}
