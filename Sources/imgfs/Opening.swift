import CommandLine
import FormatEngine
import Glibc

/// An image that is open, and the overlay that takes its writes, if there is one: it is on top of the chain then.
struct OpenedImage {
  var chain: ImageChain
  var overlay: Overlay?
}

/// Opens the images of a mount in the way that its options ask for.
struct Opening: Sendable {
  private let options: MountOptions
  private let secrets: SecretStore
  private let allowedFolders: [AllowedFolder]
  /// The mount for which images are opened, once it is there.
  let servedTree = ServedTree()
  private let warnings = Warnings()

  /// What was said. An image may be opened again and again, and nothing of it be news.
  private final class Warnings: Sendable {
    private let said = Guarded<Set<String>>([])

    func say(_ sentence: String, _ additions: [String]) {
      guard said.withLock({ $0.insert(sentence).inserted }) else { return }
      Terminal.complain("warning: " + sentence, additions)
    }
  }

  /// Throws where a folder that is to be allowed is not there.
  init(_ options: MountOptions, _ secrets: SecretStore) throws(EngineError) {
    self.options = options
    self.secrets = secrets
    var folders: [AllowedFolder] = []
    for folder in options.allowedFolders {
      do throws(EngineError) {
        folders.append(try AllowedFolder(folder))
      } catch {
        throw error.whileTrying("allow_path")
      }
    }
    allowedFolders = folders
  }

  /// Which links are followed in folders of images.
  func links(ofFolders folders: [String]) throws(EngineError) -> FolderLinks {
    var real: [String] = []
    for folder in folders { real.append(try HostFiles.realPath(folder)) }
    return FolderLinks(folders: real, allowed: allowedFolders)
  }

  /// One of the images, or the snapshot of it that is asked for, with the overlay over it. Where it is to be written and
  /// cannot be, that is said, and it is opened to be read: mount(8) asks for `rw` wherever a user does not ask for `ro`.
  ///
  /// `bounds`: where its files have to lie.
  func open(_ image: String, _ progress: Progress = .none, within bounds: FolderLinks.Bounds? = nil)
    throws(EngineError) -> OpenedImage
  {
    do throws(EngineError) {
      return try open(image, isWritten ? .readWrite : .readOnly, progress, bounds)
    } catch {
      // Opening takes long where a key is derived, and tells things: it is tried again only where that may help.
      guard isWritten,
        error.meansOnlyReading || (error.isOfMissingMember && !Self.isNoAccident(error)),
        let opened = try? open(image, .readOnly, progress, bounds)
      else { throw error }
      warnings.say("'\(image)' is mounted read-only: \(error.message)", error.additions)
      return opened
    }
  }

  private func open(
    _ image: String, _ access: FileAccess, _ progress: Progress, _ bounds: FolderLinks.Bounds?
  ) throws(EngineError) -> OpenedImage {
    do throws(EngineError) {
      if !options.usesImageOptions, ImageOpener.leadsBack(image, into: servedTree) {
        throw EngineError(.system(errno: EDEADLK), "It lies in the mount that is to show it", path: image)
      }
      let specification =
        try options.usesImageOptions ? ImageSpecification(options: image) : ImageSpecification(name: image)
      var opening = try openOptions(for: specification, access, bounds)
      opening.progress = progress
      let chain = try chain(specification, opening)
      if let bounds { try Self.require(chain, within: bounds, image) }
      warnOfMissing(chain)
      if isWritten && access == .readWrite { warnOfGuess(chain) }
      let place: Overlay.Place
      switch options.overlay {
      case nil: return OpenedImage(chain: chain, overlay: nil)
      case .temporary?: place = .temporary(inFolder: Self.temporaryFolder)
      case .file(let path)?: place = .kept(ImageName.join(path, toFolderOf: HostFiles.currentFolder))
      }
      let overlay = try Overlay(over: chain, opening, at: place)
      return OpenedImage(chain: overlay.chain, overlay: overlay)
    } catch {
      let prefix = "Could not open '\(image)'"
      var error = error.message.hasPrefix(prefix) ? error : error.whileTrying(prefix)
      if let advice = advice(on: error) { error.additions.append(advice) }
      throw error
    }
  }

  /// The name may have become a link since it was looked at: what counts is the file that is open.
  private static func require(_ chain: ImageChain, within bounds: FolderLinks.Bounds, _ image: String)
    throws(EngineError)
  {
    if let file = chain.members[0].fileStatuses.first, bounds.hold(file.identity, at: image) { return }
    try? chain.close()
    throw EngineError(
      .forbidden,
      "A link leads out of the folder, which somebody else may change; the mount option allow_path=FOLDER allows other folders",
      path: image)
  }

  /// Whether writes go into the image itself.
  private var isWritten: Bool { options.access == .readWrite && options.overlay == nil }

  private func chain(_ image: ImageSpecification, _ opening: OpenOptions) throws(EngineError) -> ImageChain {
    let chain = try ImageOpener.open(image, opening)
    // Only raw takes a file without a byte, and then there is nothing to mount. With `--format raw` it is meant.
    if chain.members[0].isProbed, try chain.members[0].file.byteCount() == 0 {
      throw .invalid("The file is empty")
    }
    if opening.access == .readWrite && !chain.isWritableAnywhere {
      throw EngineError(.readOnly, "Images of this kind are written once, from front to back")
    }
    if let reason = chain.members.last?.missing?.reason, Self.isNoAccident(reason) { throw reason }
    return try options.snapshot.map { (name) throws(EngineError) in try snapshot(name, of: chain) } ?? chain
  }

  /// What may not be opened, and what comes back to itself: whoever mounts has to say what he wants.
  private static func isNoAccident(_ reason: EngineError) -> Bool {
    reason.code == .forbidden || reason.code == .loop
  }

  private func warnOfMissing(_ chain: ImageChain) {
    guard let missing = chain.members.last?.missing else { return }
    warnings.say(
      missing.reason.message,
      missing.reason.additions + ["What '\(chain.members[0].path)' itself does not store cannot be read."])
  }

  /// Its guest could write what makes it look like an image that names other files, so that is refused. Who knows that it is raw
  /// says so, and may write anything.
  private func warnOfGuess(_ chain: ImageChain) {
    guard chain.members[0].isProbed, chain.members[0].formatName == "raw" else { return }
    warnings.say(
      "The format of '\(chain.members[0].path)' was not given, and it was taken for raw",
      ["Nothing is written to its beginning that would make it look like another format; -F raw allows it."])
  }

  /// Where what is too large for the memory may lie until the next start of the machine.
  private static var temporaryFolder: String {
    let named = unsafe getenv("TMPDIR").map { unsafe String(hostBytes: $0) } ?? ""
    return named.isEmpty ? "/var/tmp" : named
  }

  private func openOptions(
    for image: ImageSpecification, _ access: FileAccess, _ bounds: FolderLinks.Bounds?
  ) throws(EngineError) -> OpenOptions {
    var opening = OpenOptions(format: options.format, access: access)
    // A disk that cannot be read as a whole is not to be written.
    if access == .readOnly { opening.missing = .kept }
    // The kernel keeps what was read of the files: it must stay true.
    opening.sharing = options.forcesSharing ? .anybody : .readersOnly
    if options.forcesSharing && image.refusesForcedSharing {
      throw .invalid("--force-share/-U conflicts with image options")
    }
    opening.backing = options.followsBacking ? .follow : .ignore
    opening.secrets = secrets
    opening.note = { Terminal.complain($0) }
    let folders: [AllowedFolder]
    if let bounds {
      folders = bounds.folders
    } else {
      folders = allowedFolders + (try Self.ownFolders(of: image))
    }
    opening.policy = ReferencePolicy(.folders(folders))
    opening.policy.servedTree = servedTree
    opening.policy.reasonOutside =
      "it lies outside of the image's folder; the mount option allow_path=FOLDER allows other folders"
    return opening
  }

  /// Where an image may name files: the folder that its own name leads to, and the one in which it lies after all
  /// links. A device has none: beside it lie the machine's disks.
  private static func ownFolders(of image: ImageSpecification) throws(EngineError) -> [AllowedFolder] {
    guard let name = image.filePath, HostFiles.identity(of: name) != nil else { return [] }
    let path = ImageOpener.fileOfBundle(name) ?? name
    let real = try HostFiles.realPath(path)
    guard HostFiles.isRegularFile(real) else { return [] }
    var folders: [AllowedFolder] = []
    for file in [path, real] { folders.append(try AllowedFolder(ImageName.join(".", toFolderOf: file))) }
    return folders
  }

  /// An id goes before a name.
  private func snapshot(_ name: String, of chain: ImageChain) throws(EngineError) -> ImageChain {
    guard let keeper = chain.top as? any SnapshotKeeping else {
      throw .unsupported("Images of the format '\(chain.members[0].formatName)' have no internal snapshots")
    }
    guard let record = try keeper.snapshots().first(idOrName: name) else {
      throw EngineError(.notFound, "There is no snapshot '\(name)'")
    }
    return chain.replacing(layerAt: 0, with: try keeper.openSnapshot(record))
  }

  private func advice(on error: EngineError) -> String? {
    switch error.code {
    case .locked where !options.forcesSharing:
      "A running machine may be writing to it. --force-share mounts it all the same, read-only, and what is seen"
        + " then may be stale or not fit together."
    case .missingKey where !options.usesImageOptions: "--passphrase-file FILE gives its passphrase."
    default: nil
    }
  }
}

extension EngineError {
  /// Whether what could not be opened for writing may be there to be read.
  var meansOnlyReading: Bool {
    switch code {
    case .readOnly, .unsupported, .permissionDenied: true
    case .system(let number): [EACCES, EPERM, EROFS].contains(number)
    default: false
    }
  }
}
