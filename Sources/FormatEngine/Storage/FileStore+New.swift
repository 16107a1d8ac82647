internal import CLinux
import Glibc

/// Files that were not there before.
extension FileStore {
  /// Makes a file, and throws where there is something of that name already, a link included.
  ///
  /// `image`: whoever may not read all of these files may not read this one. Where there are none, nobody but the owner
  /// may.
  static func createExclusively(
    _ path: String, asPrivateAs image: [HostFiles.Status], cache: CacheMode
  ) throws(EngineError) -> FileStore {
    let mode = 0o600 | sharedBits(of: image, forGroup: groupOfNewFiles(besides: path))
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
      let allowed = 0o600 | sharedBits(of: image, forGroup: new.st_gid)
      // Some give all files the same rights, the one to run them among these, and refuse others.
      guard new.st_mode & 0o066 & ~allowed == 0 || fchmod(number, new.st_mode & allowed) == 0 else {
        throw .systemCall("Could not set the rights of '\(path)'", errno: errno, path: path)
      }
    } catch {
      HostFiles.remove(path)
      throw error
    }
    return file
  }

  /// What a file of this group may give to those who do not own it: what they have of all files of the image.
  private static func sharedBits(of image: [HostFiles.Status], forGroup group: gid_t) -> mode_t {
    image.isEmpty ? 0 : image.reduce(0o066) { $0 & sharedBits(of: $1, forGroup: group) }
  }

  /// To another group, people of the image's group are others, and the other way round.
  private static func sharedBits(of image: HostFiles.Status, forGroup group: gid_t) -> mode_t {
    if image.groupID == group { return image.mode & 0o066 }
    let both = (image.mode >> 3) & image.mode & 0o006
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
