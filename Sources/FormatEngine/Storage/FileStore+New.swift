internal import CLinux
import Glibc

/// Files that were not there before.
extension FileStore {
  /// Makes a file, and throws where there is something of that name already, a link included.
  ///
  /// `image`: whoever may not read that file may not read this one.
  static func createExclusively(
    _ path: String, asPrivateAs image: FileStore?, cache: CacheMode
  ) throws(EngineError) -> FileStore {
    let others = try image?.descriptor.status().st_mode ?? 0
    let number = retrying {
      unsafe path.withHostBytes {
        unsafe Glibc.open($0, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600 | (others & 0o066))
      }
    }
    guard number >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    return try adopt(number, FilePlace(path: path), true, cache)
  }

  /// Makes a file without a name in a folder, for its owner alone: it is gone when nobody has it open, however that
  /// comes to be.
  public static func createUnnamed(inFolder folder: String) throws(EngineError) -> FileStore {
    let flags = O_RDWR | O_CLOEXEC
    let number = retrying {
      unsafe folder.withHostBytes {
        unsafe Glibc.open($0, CInt(IMGFS_O_TMPFILE_BIT) | O_DIRECTORY | flags, 0o600)
      }
    }
    // What systems and file systems say that know of no such files.
    if number < 0, [EOPNOTSUPP, EISDIR, EINVAL, ENOENT].contains(errno) {
      return try createUnlinked(inFolder: folder)
    }
    return try adopted(number, inFolder: folder)
  }

  /// The same where a file has to have a name at first.
  static func createUnlinked(inFolder folder: String) throws(EngineError) -> FileStore {
    var number: CInt = -1
    for _ in 0..<100 {
      let name = String(UInt64.random(in: 0...UInt64.max), radix: 36)
      let path = ImageName.join(".imgfs-overlay-\(name)", toFolderOf: folder + "/.")
      number = retrying {
        unsafe path.withHostBytes {
          unsafe Glibc.open($0, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        }
      }
      if number >= 0 { HostFiles.remove(path) }
      if number >= 0 || errno != EEXIST { break }
    }
    return try adopted(number, inFolder: folder)
  }

  private static func adopted(_ number: CInt, inFolder folder: String) throws(EngineError) -> FileStore {
    guard number >= 0 else {
      throw .systemCall("Could not create a temporary file in '\(folder)'", errno: errno, path: folder)
    }
    return try adopt(number, FilePlace(path: folder + "/(temporary overlay)"), true, .writeback)
  }
}
