internal import CLinux
import Glibc

/// What a file system can be told of a file that is still empty.
extension FileStore {
  /// btrfs: writes go to the place that they overwrite. File systems without the flag do so by themselves, or do
  /// not have the choice: that it cannot be set is no error.
  func turnOffCopyOnWrite() {
    _ = imgfs_set_nocow(descriptor.number)
  }

  /// XFS: room is taken in pieces of this many bytes. Says why that cannot be set, nil where it was.
  func setExtentSizeHint(_ byteCount: UInt32) -> String? {
    guard imgfs_set_extent_size_hint(descriptor.number, byteCount) != 0 else { return nil }
    return EngineError.systemErrorText(errno)
  }
}
