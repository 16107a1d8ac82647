/// Makes new images: what `create` and `convert` have in common.
public enum ImageCreator {
  /// Options of the file below the format, in the order in which `create` prints them after the format's.
  private static let fileOptions: [OptionSchema.Option] = [
    .init("size", .size, "Virtual disk size"),
    .init("nocow", .flag, "Turn off copy-on-write (valid only on btrfs)"),
    .init("preallocation", .text, "Preallocation mode (allowed values: off, falloc, full)"),
    .init("extent_size_hint", .size, "Extent size hint for the image file, 0 to disable"),
  ]

  /// The format called `name`, in qemu-img's words where there is none or it makes no images.
  public static func creatableFormat(_ name: String) throws(EngineError) -> any CreatableFormat.Type {
    guard let format = FormatCatalog.format(named: name) else {
      throw .invalid("Unknown file format '\(name)'")
    }
    guard let creatable = format as? any CreatableFormat.Type else {
      throw .unsupported("Format driver '\(name)' does not support image creation")
    }
    return creatable
  }

  /// What `-o` takes for a new image of this format in a file.
  public static func options(of format: any CreatableFormat.Type) -> OptionSchema {
    var options = format.createOptions.options
    for option in fileOptions where !options.contains(where: { $0.name == option.name }) {
      options.append(option)
    }
    return OptionSchema(options)
  }

  /// What `-o` takes whatever the image lies in.
  public static func formatOptions(of format: any CreatableFormat.Type) -> OptionSchema {
    OptionSchema(format.createOptions.options.filter { !$0.isHidden })
  }

  /// The backing file that the options name.
  public static func backing(in options: OptionValues) -> BackingReference? {
    guard options.isGiven("backing_file"), let name = options.text("backing_file") else { return nil }
    return BackingReference(
      name: name, format: options.isGiven("backing_fmt") ? options.text("backing_fmt") : nil)
  }

  /// Checks what the options say of a backing file, and completes the size from it where none is given.
  ///
  /// `opening`: false where the backing file need not be there.
  public static func resolve(
    _ options: inout OptionValues, for path: String, policy: ReferencePolicy = .anywhere, opening: Bool,
    _ secrets: SecretStore = SecretStore()
  ) throws(EngineError) {
    if let backing = backing(in: options) {
      guard !backing.name.isEmpty else { throw .invalid("Expected backing file name, got empty string") }
      guard backing.name != path else {
        throw .invalid("Error: Trying to create an image with the same filename as the backing file")
      }
      if opening {
        let found = try openBacking(backing, of: path, policy, secrets)
        if !options.isGiven("size") { options.set("size", to: .number(found.virtualSize)) }
        guard backing.format != nil else {
          throw .invalid(
            "Backing file specified without backing format\nDetected format of \(found.members[0].formatName)."
          )
        }
      } else if backing.format == nil {
        throw .invalid("Backing file specified without backing format")
      }
    }
    // A header by itself has no disk.
    guard options.isGiven("size") || options.flag("detached-header") == true else {
      throw .invalid("Image creation needs a size parameter")
    }
  }

  private static func openBacking(
    _ backing: BackingReference, of path: String, _ policy: ReferencePolicy, _ secrets: SecretStore
  ) throws(EngineError) -> ImageChain {
    do throws(EngineError) {
      var options = OpenOptions(format: backing.format)
      options.policy = policy.trusting(path)
      options.secrets = secrets
      // A guest may be writing to it: only its header is read.
      options.sharing = .anybody
      options.readsContent = false
      // Its size can be had without its key.
      options.isForInspection = true
      return try ImageOpener.open(options.policy.specification(of: backing, namedBy: path), options)
    } catch {
      var failure = error
      failure.additions.append("Could not open backing image.")
      throw failure
    }
  }

  /// Makes the image. `options` hold the size; a file that could not be finished is taken away again
  /// where it was not there before. `sources`: disks that are being read, whose files stay as they are. Returns what
  /// else there is to say, one sentence each.
  public static func create(
    _ path: String, format: any CreatableFormat.Type, options: OptionValues, cache: CacheMode = .writeback,
    policy: ReferencePolicy = .anywhere, secrets: SecretStore = SecretStore(),
    identities: IdentitySource = .unique, whileReading sources: [ImageChain] = []
  ) throws(EngineError) -> [String] {
    let plain = try ImageName.plainPath(path)
    guard !ImageName.asksForRegularFile(path) || FilePlace(path: plain).kind?.isDevice != true else {
      throw .invalid("Could not resize file: Invalid argument")
    }
    let backing = backing(in: options)
    let recorded = options.isGiven("backing_fmt") ? options.text("backing_fmt") : nil
    if let recorded {
      try format.checkBackingFormat(
        recorded, isKnown: FormatCatalog.format(named: recorded) != nil, hasBacking: backing != nil)
    }
    try checkFilePreallocation(options, of: format)
    let virtualSize = try wholeSectors(options.number("size") ?? 0)
    let existed = HostFiles.identity(of: plain) != nil
    // Its old content stays until the format has found nothing wrong with the options.
    let file = try FileStore.create(plain, emptying: false, cache: cache)
    if format.fileContent == .tables { try file.lock(.creationOfTables) }
    var request = CreateRequest(
      path: plain, virtualSize: virtualSize, backing: backing, options: options,
      references: ReferenceOpener(policy: policy.trusting(plain), cache: cache))
    request.secrets = secrets
    request.identities = self.identities(identities, format, plain, options)
    request.references.filesInUse = filesInUse(by: sources)
    let newFiles = NewFiles()
    request.references.newFiles = newFiles
    var isTouched = false
    do throws(EngineError) {
      try format.checkOptions(request)
      isTouched = true
      var warnings = try apply(options, to: file)
      try format.create(on: file.kind.isDevice && !format.keepsOldBytes ? EmptiedDevice(file) : file, request)
      if identities.isDerived && format.makesKeys(options) {
        warnings.append("'\(plain)' will be another file each time it is made: its keys and salts are random")
      }
      return warnings
    } catch {
      newFiles.remove()
      if !existed || (isTouched && format.removesFailedFiles && file.kind == .regular) {
        HostFiles.remove(plain)
      }
      // The host's own limit on a file.
      guard error.code == .tooLarge, error.path == plain else { throw error }
      throw EngineError(
        .tooLarge, "The image size is too large for file format '\(format.name)'", path: plain)
    }
  }

  /// Whether images of a format record ids, by which others know their state.
  public static func recordsIdentity(_ format: String) -> Bool {
    (FormatCatalog.format(named: format) as? any CreatableFormat.Type)?.recordsIdentity == true
  }

  /// Refuses to make an image called `name` where that is a file which is being read: making it would empty it.
  public static func refuse(_ name: String, whileReading sources: [ImageChain]) throws(EngineError) {
    let path = try ImageName.plainPath(name)
    guard let identity = HostFiles.identity(of: path) else { return }
    if filesInUse(by: sources)[identity] != nil { throw .inUse(path) }
  }

  /// The files that disks lie in, those that their images name included, with their paths.
  static func filesInUse(by sources: [ImageChain]) -> [HostFiles.Identity: String] {
    var files: [HostFiles.Identity: String] = [:]
    for member in sources.flatMap(\.members) {
      for file in member.hostFiles { files[file.identity] = file.path }
      for file in (member.layer as? any SelfDescribing)?.extraFiles ?? [] {
        if let identity = HostFiles.identity(of: file.path) { files[identity] = file.path }
      }
    }
    return files
  }

  /// What the ids of a new image are made of.
  static func identities(
    _ source: IdentitySource, _ format: any CreatableFormat.Type, _ path: String, _ options: OptionValues
  ) -> IdentitySource {
    options.shown.reduce(source.mixing(format.name).mixing(ImageName.lastComponent(of: path))) {
      $0.mixing($1.name).mixing($1.value)
    }
  }

  static func wholeSectors(_ size: UInt64) throws(EngineError) -> UInt64 {
    guard size <= maximumFileOffset - 511 else {
      throw EngineError(.tooLarge, "Image size is too large")
    }
    return size.aligned(upTo: 512)
  }

  /// Of a format that has no preallocation itself the option means its file.
  private static func checkFilePreallocation(_ options: OptionValues, of format: any CreatableFormat.Type)
    throws(EngineError)
  {
    guard format.createOptions.option(named: "preallocation") == nil, options.isGiven("preallocation"),
      let text = options.text("preallocation")
    else { return }
    switch Preallocation(rawValue: text) {
    case .off, .falloc, .full: break
    case .metadata: throw .unsupported("Unsupported preallocation mode: \(text)")
    case nil: throw .invalid("invalid parameter value: \(text)")
    }
  }

  /// Says what the file system does not do. The file is empty afterwards where something was asked for.
  private static func apply(_ options: OptionValues, to file: FileStore) throws(EngineError) -> [String] {
    let hint = options.number("extent_size_hint") ?? 0
    guard hint <= UInt32.max else { throw .invalid("Extent size hint is too large") }
    guard file.kind == .regular, options.flag("nocow") == true || hint > 0 else { return [] }
    try file.resize(to: 0)
    if options.flag("nocow") == true { file.turnOffCopyOnWrite() }
    guard hint > 0, let failure = file.setExtentSizeHint(UInt32(hint)) else { return [] }
    return ["Failed to set extent size hint: \(failure)"]
  }
}

extension EngineError {
  /// A file would be written that is being read.
  static func inUse(_ path: String) -> EngineError {
    EngineError.lockRefused("\"write\"", path)
  }
}
