import CommandLine
import FormatEngine
import Glibc

/// Opens the images of a mount in the way that its options ask for.
struct Opening: Sendable {
  private let options: MountOptions
  private let secrets: SecretStore
  private let allowedFolders: [AllowedFolder]

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

  /// One of the images, or the snapshot of it that is asked for.
  func open(_ image: String) throws(EngineError) -> ImageChain {
    do throws(EngineError) {
      let specification =
        try options.usesImageOptions ? ImageSpecification(options: image) : ImageSpecification(name: image)
      let chain = try ImageOpener.open(specification, try openOptions(for: specification))
      // Only raw takes a file without a byte, and then there is nothing to mount. With `--format raw` it is meant.
      if options.format == nil, try chain.members[0].file.byteCount() == 0 {
        throw .invalid("The file is empty")
      }
      return try options.snapshot.map { (name) throws(EngineError) in try snapshot(name, of: chain) } ?? chain
    } catch {
      let prefix = "Could not open '\(image)'"
      var error = error.message.hasPrefix(prefix) ? error : error.whileTrying(prefix)
      error.message += advice(on: error)
      throw error
    }
  }

  private func openOptions(for image: ImageSpecification) throws(EngineError) -> OpenOptions {
    var opening = OpenOptions(
      format: options.format, access: options.access == .readWrite ? .readWrite : .readOnly)
    // The kernel keeps what was read of the files: it must stay true.
    opening.sharing = options.forcesSharing ? .anybody : .readersOnly
    if options.forcesSharing && image.refusesForcedSharing {
      throw .invalid("--force-share/-U conflicts with image options")
    }
    opening.backing = options.followsBacking ? .follow : .ignore
    opening.secrets = secrets
    opening.note = { Terminal.complain($0) }
    opening.policy = ReferencePolicy(.folders(allowedFolders + (try Self.ownFolders(of: image))))
    opening.policy.reasonOutside =
      "it lies outside of the image's folder; the mount option allow_path=FOLDER allows other folders"
    return opening
  }

  /// Where an image may name files: the folder that its own name leads to, and the one in which it lies after all
  /// links. A device has none: beside it lie the machine's disks.
  private static func ownFolders(of image: ImageSpecification) throws(EngineError) -> [AllowedFolder] {
    guard let path = image.filePath, HostFiles.identity(of: path) != nil else { return [] }
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
    let records = try keeper.snapshots()
    guard let record = records.first(where: { $0.id == name }) ?? records.first(where: { $0.name == name })
    else {
      throw EngineError(.notFound, "There is no snapshot '\(name)'")
    }
    return chain.replacing(layerAt: 0, with: try keeper.openSnapshot(record))
  }

  /// What to do about an error, after its message.
  private func advice(on error: EngineError) -> String {
    switch error.code {
    case .locked where !options.forcesSharing:
      "\nA running machine may be writing to it. --force-share mounts it all the same, read-only, and what is seen"
        + " then may be stale or not fit together."
    case .missingKey where !options.usesImageOptions: "\n--passphrase-file FILE gives its passphrase."
    default: ""
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
