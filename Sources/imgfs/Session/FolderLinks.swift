import FormatEngine
import Glibc

/// Which links in folders of images are followed. Whoever may put a link into a folder that is not his who mounts it would
/// show with it what that one may read: so in a folder that is somebody else's, and of a name that is, nothing is shown that lies
/// outside of the folder and of those that are allowed.
struct FolderLinks: Sendable {
  /// Folders of images, without links.
  private let folders: [String]
  private let allowed: [AllowedFolder]

  init(folders: [String] = [], allowed: [AllowedFolder] = []) {
    self.folders = folders
    self.allowed = allowed
  }

  /// Where the files of an image in a folder have to lie.
  struct Bounds {
    let folders: [AllowedFolder]

    /// Whether a file, as it was found open, lies there; its name is followed once more.
    func hold(_ file: HostFiles.Identity, at path: String) -> Bool { identities(at: path).contains(file) }

    func hold(_ path: String) -> Bool { !identities(at: path).isEmpty }

    /// The file that a name leads to, of each folder in which it lies.
    private func identities(at path: String) -> [HostFiles.Identity] {
      guard let real = try? HostFiles.realPath(ImageOpener.fileOfBundle(path) ?? path) else { return [] }
      return folders.compactMap { $0.identity(ofRealPath: real) }
    }
  }

  /// Nil where links are followed wherever they lead: no image of a folder, or one that only he who mounts, or root, can have put
  /// there.
  func bounds(of path: String) throws(EngineError) -> Bounds? {
    guard let folder = folders.first(where: { Self.isName(path, in: $0) }) else { return nil }
    if Self.isOwned(folder), Self.isOwned(path) { return nil }
    return Bounds(folders: [try AllowedFolder(folder)] + allowed)
  }

  /// Whether an image is shown.
  func mayShow(_ path: String) -> Bool {
    do throws(EngineError) { return try bounds(of: path)?.hold(path) ?? true } catch { return false }
  }

  private static func isName(_ path: String, in folder: String) -> Bool {
    let (path, folder) = (path.hostBytes, folder.hostBytes)
    guard let slash = path.lastIndex(of: UInt8(ascii: "/")) else { return false }
    return path[..<max(1, slash)].elementsEqual(folder)
  }

  /// Whether nobody but root and the user who mounts has put the name there; a link is looked at itself.
  private static func isOwned(_ path: String) -> Bool {
    var status = stat()
    guard unsafe path.withHostBytes({ unsafe lstat($0, &status) }) == 0 else { return false }
    return status.st_uid == 0 || status.st_uid == geteuid()
  }
}
