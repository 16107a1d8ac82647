internal import CLinux
import Glibc

/// Questions about names in the host's file system.
public enum HostFiles {
  /// What is at a path.
  public enum Kind: Sendable {
    case regular, blockDevice, characterDevice, folder, other

    public var isDevice: Bool { self == .blockDevice || self == .characterDevice }
  }

  /// Device and inode: two names with the same identity are the same file.
  public struct Identity: Hashable, Sendable {
    public var device: UInt64
    public var inode: UInt64
  }

  /// What there is to see of a file from outside.
  public struct Status: Equatable, Sendable {
    public let identity: Identity
    public let kind: Kind
    /// Kind and rights, as stat(2) has them.
    let mode: mode_t
    let groupID: gid_t
    /// How many names it has.
    public let linkCount: UInt64
    /// 0 for devices, of which the system does not say it without opening them.
    public let byteCount: UInt64
    /// Of the last change, since the Epoch.
    public let modifiedSeconds: Int64
    public let modifiedNanoseconds: Int64

    init(_ status: stat) {
      identity = Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
      kind = HostFiles.kind(ofMode: status.st_mode)
      (mode, groupID, linkCount) = (status.st_mode, status.st_gid, UInt64(status.st_nlink))
      byteCount = UInt64(clamping: status.st_size)
      modifiedSeconds = Int64(status.st_mtim.tv_sec)
      modifiedNanoseconds = Int64(status.st_mtim.tv_nsec)
    }
  }

  /// The path without symbolic links, "." and "..".
  public static func realPath(_ path: String) throws(EngineError) -> String {
    guard let resolved = unsafe path.withHostBytes({ unsafe realpath($0, nil) }) else {
      throw .systemCall("Could not open '\(path)'", errno: errno, path: path)
    }
    defer { unsafe free(resolved) }
    return unsafe String(hostBytes: resolved)
  }

  /// The folder that the process is in, with a slash at its end.
  public static var currentFolder: String {
    guard let path = unsafe getcwd(nil, 0) else { return "/" }
    defer { unsafe free(path) }
    return unsafe String(hostBytes: path) + "/"
  }

  /// What there is to see of what the path leads to, nil where it leads to nothing.
  public static func status(of path: String) -> Status? { FilePlace(path: path).status().map { Status($0) } }

  /// Which file the path leads to, nil where it leads to none.
  public static func identity(of path: String) -> Identity? { identity(of: FilePlace(path: path)) }

  static func identity(of place: FilePlace) -> Identity? { place.status().map { Status($0).identity } }

  /// Whether the path leads to a regular file.
  public static func isRegularFile(_ path: String) -> Bool { FilePlace(path: path).kind == .regular }

  /// Whether there is nothing at the path.
  static func isMissing(_ path: String) -> Bool {
    !path.isEmpty && !path.utf8.contains(0) && identity(of: path) == nil
  }

  /// Names of regular files, and of links to such, in a folder, sorted; of the first `limit` names that are there.
  static func regularFiles(inFolder place: FilePlace, atMost limit: Int, where isWanted: (String) -> Bool)
    -> [String]
  {
    let descriptor = place.open(flags: O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { return [] }
    guard let folder = unsafe fdopendir(descriptor) else {
      close(descriptor)
      return []
    }
    // Closes the descriptor with it.
    defer { unsafe closedir(folder) }
    return unsafe entries(of: folder, atMost: limit).filter { name in
      guard isWanted(name) else { return false }
      var status = stat()
      return unsafe name.withHostBytes({ unsafe fstatat(descriptor, $0, &status, 0) }) == 0
        && kind(ofMode: status.st_mode) == .regular
    }.sorted()
  }

  /// All names in a folder but "." and "..", in no order, at most `limit` of them. Nil where it cannot be read: errno says
  /// why.
  public static func names(inFolder path: String, atMost limit: Int = .max) -> [String]? {
    guard let folder = unsafe path.withHostBytes({ unsafe opendir($0) }) else { return nil }
    defer { unsafe closedir(folder) }
    return unsafe entries(of: folder, atMost: limit)
  }

  private static func entries(of folder: OpaquePointer, atMost limit: Int) -> [String] {
    var names: [String] = []
    while names.count < limit, let entry = unsafe readdir(folder) {
      // SAFETY: readdir ends names with a NUL inside of `d_name`.
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { field in
        unsafe field.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(hostBytes: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }

  /// Bytes of a regular file, and those that it takes on the host, without opening it.
  static func sizes(of place: FilePlace) throws(EngineError) -> (
    byteCount: UInt64, allocatedByteCount: UInt64
  ) {
    let path = place.path
    guard let status = place.status() else {
      throw .systemCall("Could not open '\(path)'", errno: errno, path: path)
    }
    guard kind(ofMode: status.st_mode) == .regular else {
      throw EngineError(
        .invalidArgument, "'file' driver requires '\(path)' to be a regular file", path: path)
    }
    return (UInt64(max(0, status.st_size)), UInt64(max(0, status.st_blocks)) * 512)
  }

  /// Takes away a file that was not finished; that it cannot be is no further error.
  static func remove(_ path: String) { _ = unsafe path.withHostBytes { unsafe unlink($0) } }

  static func kind(ofMode mode: mode_t) -> Kind {
    switch mode & S_IFMT {
    case S_IFREG: .regular
    case S_IFBLK: .blockDevice
    case S_IFCHR: .characterDevice
    case S_IFDIR: .folder
    default: .other
    }
  }
}

extension EngineError {
  /// A failed system call: what was tried, and the system's own words for `errno`.
  public static func systemCall(_ tried: String, errno number: CInt, path: String? = nil) -> EngineError {
    let words = systemErrorText(number)
    let code: Code =
      switch number {
      case ENOENT: .notFound
      case EACCES, EPERM: .permissionDenied
      case EROFS: .readOnly
      case ENOSPC, EDQUOT: .noSpace
      case EFBIG: .tooLarge
      default: .system(errno: number)
      }
    return EngineError(code, "\(tried): \(words)", path: path)
  }

  /// What makes no sense here, or the rules forbid, whoever asks (EPERM).
  public static func notPermitted(_ message: String, path: String? = nil) -> EngineError {
    EngineError(.system(errno: EPERM), message, path: path)
  }

  /// Bytes that are not to be had any more, or not now (EIO).
  static func unreadable(_ message: String, path: String? = nil, offset: UInt64? = nil) -> EngineError {
    EngineError(.system(errno: EIO), message, path: path, offset: offset)
  }

  /// This process, or the host, has too much open: it says nothing of any file.
  var isShortage: Bool { [EMFILE, ENFILE, ENOMEM].contains(errno) }

  /// The system's sentence for an error number.
  public static func systemErrorText(_ number: CInt) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    // SAFETY: strerror_r writes at most the given count into the buffer, or returns a constant string.
    return unsafe buffer.withUnsafeMutableBufferPointer { raw in
      guard let base = raw.baseAddress else { return "error \(number)" }
      return unsafe String(hostBytes: imgfs_strerror(number, base, raw.count))
    }
  }

  /// Of what is damaged, or leaves a disk.
  public static var ioErrorText: String { systemErrorText(EIO) }

  /// The system's own words where a system call failed.
  public var systemText: String? {
    switch code {
    case .system, .noSpace, .permissionDenied, .forbidden, .wrongKey, .readOnly, .notFound:
      Self.systemErrorText(errno)
    default: nil
    }
  }

  /// Where a system call failed, with the system's words alone: for messages that say themselves what was done.
  public var inSystemWords: EngineError {
    guard let systemText else { return self }
    var error = self
    // What there was to add belonged to the other words.
    (error.message, error.additions) = (systemText, [])
    return error
  }

  /// The nearest `errno`, for FUSE replies.
  public var errno: CInt {
    switch code {
    case .system(let number): number
    case .notFound: ENOENT
    case .permissionDenied, .forbidden, .wrongKey: EACCES
    case .missingKey: ENOKEY
    case .loop: ELOOP
    case .readOnly: EROFS
    case .noSpace: ENOSPC
    case .tooLarge: EFBIG
    case .locked: EAGAIN
    case .cancelled: EINTR
    case .unsupported: EOPNOTSUPP
    case .invalidArgument, .outsideDisk: EINVAL
    case .corrupt, .notThisFormat: EIO
    }
  }
}

/// glibc has two functions called strerror_r; this one returns the text.
private func imgfs_strerror(_ number: CInt, _ buffer: UnsafeMutablePointer<CChar>, _ size: Int)
  -> UnsafePointer<CChar>
{
  unsafe strerror_r(number, buffer, size)
  return unsafe UnsafePointer(buffer)
}
