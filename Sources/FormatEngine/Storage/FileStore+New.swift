internal import CLinux
import Glibc

/// Files that were not there before.
extension FileStore {
  /// Makes a file, and throws where there is something of that name already, a link included.
  ///
  /// `image`: whoever may not read that file may not read this one. Nil: nobody but the owner may.
  static func createExclusively(
    _ path: String, asPrivateAs image: FileStore?, cache: CacheMode
  ) throws(EngineError) -> FileStore {
    var mode = mode_t(0o600)
    let status = try image?.descriptor.status()
    if let status { mode |= sharedBits(of: status, forGroup: groupOfNewFiles(besides: path)) }
    let number = retrying {
      unsafe path.withHostBytes {
        unsafe Glibc.open($0, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode)
      }
    }
    guard number >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    let file = try adopt(number, FilePlace(path: path), true, cache)
    do throws(EngineError) {
      // Some file systems have rules of their own for the group.
      let new = try file.descriptor.status()
      let allowed = 0o600 | (status.map { sharedBits(of: $0, forGroup: new.st_gid) } ?? 0)
      guard new.st_mode & 0o777 & ~allowed == 0 || fchmod(number, new.st_mode & allowed) == 0 else {
        throw .systemCall("Could not set the rights of '\(path)'", errno: errno, path: path)
      }
    } catch {
      HostFiles.remove(path)
      throw error
    }
    return file
  }

  /// What a file of another group may give to those who do not own it, where they have it of the image: people of the
  /// image's group are others to it, and the other way round.
  private static func sharedBits(of image: stat, forGroup group: gid_t) -> mode_t {
    if image.st_gid == group { return image.st_mode & 0o066 }
    let both = (image.st_mode >> 3) & image.st_mode & 0o006
    return both << 3 | both
  }

  /// That of the folder where it hands its group down.
  private static func groupOfNewFiles(besides path: String) -> gid_t {
    guard let folder = FilePlace(path: ImageName.join(".", toFolderOf: path)).status(),
      folder.st_mode & S_ISGID != 0
    else { return getegid() }
    return folder.st_gid
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
