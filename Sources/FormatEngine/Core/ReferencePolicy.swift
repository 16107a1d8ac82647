/// Decides whether a file that an image names may be opened. Every such name - backing files, external
/// data files, extents, parents, bundle members - passes here and nowhere else, because a crafted image
/// that makes a tool open a file of the host is the worst that image formats have to offer.
public struct ReferencePolicy: Sendable {
  /// What the image names the file for.
  public enum Role: String, Sendable {
    case backingFile = "backing file"
    case dataFile = "data file"
    case extent = "extent"
    case parent = "parent"
  }

  public enum Scope: Sendable {
    /// Any regular file or block device: what qemu-img does.
    case anywhere
    /// Only what lies below one of these folders once all symbolic links are followed.
    case folders([AllowedFolder])
    case nowhere
  }

  public var scope: Scope
  /// Why a file outside of the folders is refused: it names the option of the program that gives more of them.
  public var reasonOutside = "it lies outside of the folders that --allow-path gives"
  /// Images, by the bytes of their paths, that are made by the one who asks: what they name he has named himself.
  private var ownImages: Set<[UInt8]> = []

  /// The file system that the process itself serves: what lies there would be waited for in vain.
  public var servedTree: ServedTree?

  public init(_ scope: Scope) { self.scope = scope }

  public static let anywhere = ReferencePolicy(.anywhere)

  /// The same, where the image at `path` is made by the one who asks, or gets from him the names that it records.
  public func trusting(_ path: String) -> ReferencePolicy {
    var policy = self
    policy.ownImages.insert(Array(path.utf8))
    return policy
  }

  /// The place of the file to open for `name`, relative to the folder of `path`. QEMU takes a data file's name as relative to the
  /// current folder: that is where it is looked for when it does not lie beside its image.
  ///
  /// Names with a protocol prefix are refused: only `file:` of a backing file is understood.
  public func resolve(_ name: String, for role: Role, namedBy path: String) throws(EngineError) -> FilePlace {
    let plain = try ImageName.plainPath(name, allowingFilePrefix: role == .backingFile)
    // "file:" alone names nothing either.
    var candidate = plain.isEmpty ? plain : ImageName.join(plain, toFolderOf: path)
    if role == .dataFile, !leadsBack(candidate), HostFiles.isMissing(candidate), !leadsBack(plain),
      !HostFiles.isMissing(plain)
    {
      candidate = plain
    }
    return try resolve(path: candidate, of: name, for: role, namedBy: path)
  }

  /// The place of the file to open for `candidate`, which is a path already, and which the image gives as `name`.
  func resolve(path candidate: String, of name: String, for role: Role, namedBy path: String)
    throws(EngineError) -> FilePlace
  {
    guard !candidate.isEmpty else { throw .corrupt("The image names a \(role.rawValue) without a name") }
    guard !candidate.utf8.contains(0) else {
      throw .corrupt("The image names a \(role.rawValue) with a NUL byte in its name")
    }
    // Before anything asks what is there.
    if leadsBack(candidate) {
      throw refusal(name, role, path, "it lies in the mount that is to show it")
    }
    let place = try allowed(candidate, name, role, path)
    // To open one can already do something: set off a watchdog, wait for a terminal. `FileStore.open` looks once more.
    guard place.kind != .characterDevice else {
      throw refusal(name, role, path, "it is a character device")
    }
    return place
  }

  /// A file that lies elsewhere is not opened; its name is followed, to see where it leads.
  private func allowed(_ candidate: String, _ name: String, _ role: Role, _ path: String) throws(EngineError)
    -> FilePlace
  {
    guard !ownImages.contains(Array(path.utf8)) else { return FilePlace(named: candidate) }
    switch scope {
    case .anywhere: return FilePlace(named: candidate)
    case .nowhere: throw refusal(name, role, path, "no file that an image names is to be opened")
    case .folders(let folders):
      let real = try HostFiles.realPath(candidate)
      for folder in folders {
        if let inside = folder.place(ofRealPath: real) { return FilePlace(named: candidate, in: inside) }
      }
      throw refusal(name, role, path, reasonOutside)
    }
  }

  /// Whether a path leads into what the process itself serves.
  func leadsBack(_ path: String) -> Bool { servedTree?.holds(path) == true }

  private func refusal(_ name: String, _ role: Role, _ path: String, _ reason: String) -> EngineError {
    EngineError(
      .forbidden, "The \(role.rawValue) '\(name)' of '\(path)' is not opened: \(reason)", path: path)
  }
}

/// Files that were made for an image, to be taken away again where that comes to nothing.
final class NewFiles: Sendable {
  private let paths = Guarded<[String]>([])

  func note(_ path: String) { paths.withLock { $0.append(path) } }

  func remove() { for path in paths.withLock({ $0 }) { HostFiles.remove(path) } }
}

/// Opens the files that an image names, for the format that found the names.
public struct ReferenceOpener: Sendable {
  public var policy: ReferencePolicy
  public var cache: CacheMode
  /// Locks the files.
  public var locks: ImageLocks = .none
  /// False: no file is opened at all, for commands that must not touch what an image names.
  public var isEnabled: Bool
  /// Whether folders may be searched for what an image tells by an id only: what lies below it is wanted.
  public var maySearch: Bool
  /// Files that are being read, by their paths: a new file must not take the place of one of them.
  public var filesInUse: [HostFiles.Identity: String] = [:]
  /// Hears of each file that is made and was not there before.
  var newFiles: NewFiles?
  /// Opened all the same: parts of the image itself, which a check has to read.
  public var checkedRoles: Set<ReferencePolicy.Role> = []

  public init(policy: ReferencePolicy = .anywhere, cache: CacheMode = .writeback, isEnabled: Bool = true) {
    self.policy = policy
    self.cache = cache
    self.isEnabled = isEnabled
    maySearch = isEnabled
  }

  /// As `ReferencePolicy.trusting`.
  func trusting(_ path: String) -> ReferenceOpener {
    var opener = self
    opener.policy = policy.trusting(path)
    return opener
  }

  /// Whether files of a role are opened at all.
  public func opens(_ role: ReferencePolicy.Role) -> Bool { isEnabled || checkedRoles.contains(role) }

  /// The file `name` that the image at `path` names, opened. `content`: what it is to the image; nil for one that is only
  /// looked at, which needs no lock.
  public func open(
    _ name: String, for role: ReferencePolicy.Role, namedBy path: String, access: FileAccess,
    holding content: FileContent?
  ) throws(EngineError) -> FileStore {
    let target = try policy.resolve(name, for: role, namedBy: path)
    let file = try FileStore.open(target, access: access, cache: cache)
    if let content { try locks.lock(file, holding: content, access: access) }
    return file
  }

  /// A new, empty file `name` for the image at `path`.
  public func create(_ name: String, for role: ReferencePolicy.Role, namedBy path: String)
    throws(EngineError) -> FileStore
  {
    let target = ImageName.join(try ImageName.plainPath(name, allowingFilePrefix: false), toFolderOf: path)
    let identity = HostFiles.identity(of: target)
    if let identity, let used = filesInUse[identity] { throw .inUse(used) }
    let file = try FileStore.create(target, cache: cache)
    if identity == nil { newFiles?.note(target) }
    return file
  }

  /// Names of a folder that are looked at when a file is searched for in it; the largest folders of images have
  /// some hundreds.
  public static let maximumListedNames = 4096

  /// The regular files of the folder `folder`, relative to the folder of the image at `path`, whose names end in
  /// one of `suffixes`, in order of their names. Empty where searching is not allowed or the folder cannot be read.
  public func names(
    inFolder folder: String, endingIn suffixes: [String], for role: ReferencePolicy.Role, namedBy path: String
  ) -> [String] {
    guard maySearch, let target = try? policy.resolve(folder, for: role, namedBy: path) else { return [] }
    return HostFiles.regularFiles(inFolder: target, atMost: Self.maximumListedNames) { name in
      suffixes.contains { name.utf8.count > $0.utf8.count && name.lowercased().hasSuffix($0) }
        && !policy.leadsBack(target.appending(name).path)
    }
  }
}
