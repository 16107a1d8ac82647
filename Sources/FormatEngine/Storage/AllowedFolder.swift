internal import CLinux
import Glibc

/// A folder of the host that is held open. Files below it are opened step by step from there on, without following
/// a symbolic link: whatever happens to the names in the meantime, what is opened lies in the folder.
public final class AllowedFolder: Sendable {
  /// As it was given.
  public let path: String
  /// Without symbolic links.
  let realPath: String
  private let descriptor: CInt

  /// Throws where there is no such folder, or none that may be entered.
  public init(_ path: String) throws(EngineError) {
    descriptor = unsafe path.withHostBytes {
      unsafe Glibc.open($0, CInt(IMGFS_O_PATH) | O_DIRECTORY | O_CLOEXEC)
    }
    guard descriptor >= 0 else {
      throw .systemCall("Could not open the folder '\(path)'", errno: errno, path: path)
    }
    self.path = path
    do throws(EngineError) {
      realPath = try HostFiles.realPath(path)
    } catch {
      close(descriptor)
      throw error
    }
  }

  deinit { close(descriptor) }

  /// The place of a path that has no symbolic links, nil where it lies outside of the folder.
  func place(ofRealPath real: String) -> PlaceInFolder? {
    // Names are bytes: texts that Swift takes for equal may be two folders.
    let (path, root) = (Array(real.utf8), Array(realPath.utf8))
    if path == root { return PlaceInFolder(folder: self, components: []) }
    let slash = UInt8(ascii: "/")
    let prefix = root.last == slash ? root : root + [slash]
    guard path.starts(with: prefix) else { return nil }
    let names = path.dropFirst(prefix.count).split(separator: slash)
    return PlaceInFolder(folder: self, components: names.map { String(decoding: $0, as: UTF8.self) })
  }

  /// Which file is at a path that has no symbolic links; nil where nothing is, and where it lies outside of the folder. No link
  /// is followed that is there by now.
  public func identity(ofRealPath real: String) -> HostFiles.Identity? {
    place(ofRealPath: real).flatMap { HostFiles.identity(of: FilePlace(named: real, in: $0)) }
  }

  /// Opens what the steps lead to; -1 and `errno` where that fails.
  fileprivate func open(_ steps: [String], flags: CInt) -> CInt {
    guard let last = steps.last else { return unsafe openat(descriptor, ".", flags | O_CLOEXEC) }
    var folder = descriptor
    defer { if folder != descriptor { close(folder) } }
    for step in steps.dropLast() {
      let next = unsafe step.withHostBytes {
        unsafe openat(folder, $0, CInt(IMGFS_O_PATH) | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      }
      let number = errno
      if folder != descriptor { close(folder) }
      folder = descriptor
      guard next >= 0 else {
        errno = number
        return -1
      }
      folder = next
    }
    let result = unsafe last.withHostBytes { unsafe openat(folder, $0, flags | O_NOFOLLOW | O_CLOEXEC) }
    let number = errno
    defer { errno = number }
    return result
  }
}

/// A place in an allowed folder: the names that lead there, none of them a link, "." or "..".
struct PlaceInFolder: Equatable, Sendable {
  let folder: AllowedFolder
  var components: [String]

  static func == (a: PlaceInFolder, b: PlaceInFolder) -> Bool {
    a.folder === b.folder && a.components == b.components
  }

  /// As `open(2)`.
  func open(flags: CInt) -> CInt { folder.open(components, flags: flags) }
}

/// Where a file that an image names lies.
public struct FilePlace: Equatable, Sendable {
  /// For messages, and for names that are relative to its folder.
  public let path: String
  /// Where it has to be; nil: the path says it.
  let confinement: PlaceInFolder?
  /// Whether a character device may be there. To open one can already do something, so no image may name one.
  let allowsCharacterDevices: Bool

  init(path: String) {
    self.path = path
    confinement = nil
    allowsCharacterDevices = true
  }

  /// Of a file that an image names.
  init(named path: String, in confinement: PlaceInFolder? = nil) {
    self.path = path
    self.confinement = confinement
    allowsCharacterDevices = false
  }

  /// As `open(2)`.
  func open(flags: CInt) -> CInt {
    if let confinement { return confinement.open(flags: flags) }
    return unsafe path.withHostBytes { unsafe Glibc.open($0, flags, 0o644) }
  }

  /// What is there, without opening it for reading; nil where nothing is, with the reason in `errno`.
  func status() -> stat? {
    var status = stat()
    guard let confinement else {
      return unsafe path.withHostBytes { unsafe stat($0, &status) } == 0 ? status : nil
    }
    let descriptor = confinement.open(flags: CInt(IMGFS_O_PATH))
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    return unsafe fstat(descriptor, &status) == 0 ? status : nil
  }

  /// What is there, nil where nothing is.
  var kind: HostFiles.Kind? { status().map { HostFiles.kind(ofMode: $0.st_mode) } }

  /// The file called `name` in this folder.
  func appending(_ name: String) -> FilePlace {
    let longer = path.utf8.last == UInt8(ascii: "/") ? path + name : "\(path)/\(name)"
    guard !allowsCharacterDevices else { return FilePlace(path: longer) }
    var place = confinement
    place?.components.append(name)
    return FilePlace(named: longer, in: place)
  }
}
