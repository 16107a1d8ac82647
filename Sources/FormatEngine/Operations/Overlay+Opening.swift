extension Overlay {
  static func temporary(over image: ImageChain, inFolder folder: String) throws(EngineError) -> ChainMember {
    let format = FormatCatalog.overlay
    let file = try FileStore.createUnnamed(inFolder: folder)
    // That there is a file below makes zeros of what is discarded. Nobody goes by its name.
    let backing = BackingReference(name: "image", format: formatName(of: image))
    try make(on: file, over: image, backing)
    var request = LayerRequest(path: file.path, access: .readWrite, references: ReferenceOpener())
    request.isOverlay = true
    return ChainMember(
      layer: try format.open(file, request), file: file, path: file.path, formatName: format.name)
  }

  /// The overlay in a file that has a name. It records what it lies over.
  static func kept(over image: ImageChain, at name: String, _ options: OpenOptions) throws(EngineError)
    -> ChainMember
  {
    let path = try ImageName.plainPath(name)
    let recorded = try recordedName(of: image)
    let backing = BackingReference(name: recorded, format: formatName(of: image))
    if HostFiles.isMissing(path) {
      try create(path, over: image, backing, options)
    } else {
      // Before it is opened for writing, which may change it.
      try requireOverlay(path, of: image, backing, options)
    }
    let top = try open(path, .readWrite, options)
    try require(top, over: image, backing)
    return top
  }

  private static func make(on file: FileStore, over image: ImageChain, _ backing: BackingReference)
    throws(EngineError)
  {
    let format = FormatCatalog.overlay
    try format.create(
      on: file,
      CreateRequest(
        path: file.path, virtualSize: ImageCreator.wholeSectors(image.virtualSize), backing: backing,
        options: OptionValues(format.createOptions), references: ReferenceOpener()))
  }

  private static func create(
    _ path: String, over image: ImageChain, _ backing: BackingReference, _ options: OpenOptions
  ) throws(EngineError) {
    // It takes bytes of every file of the chain: the rest of a cluster of which a part is written.
    let isEncrypted = image.members.contains(where: \.isEncrypted)
    let file = try FileStore.createExclusively(
      path, asPrivateAs: isEncrypted ? [] : image.members.flatMap(\.fileStatuses), cache: options.cache)
    do throws(EngineError) {
      try file.lock(.creationOfTables)
      try make(on: file, over: image, backing)
    } catch {
      HostFiles.remove(path)
      throw error
    }
  }

  private static func open(_ path: String, _ access: FileAccess, _ options: OpenOptions) throws(EngineError)
    -> ChainMember
  {
    var opening = OpenOptions(format: access == .readWrite ? FormatCatalog.overlay.name : nil, access: access)
    opening.backing = .ignore
    opening.policy = options.policy
    opening.note = options.note
    opening.progress = options.progress
    if access == .readOnly {
      opening.sharing = .anybody
      opening.readsContent = false
      opening.isForInspection = true
    } else {
      opening.cache = options.cache
    }
    return try ImageOpener.open(ImageSpecification(path: path), opening).members[0]
  }

  /// Looks at a file that is there already.
  private static func requireOverlay(
    _ path: String, of image: ImageChain, _ backing: BackingReference, _ options: OpenOptions
  ) throws(EngineError) {
    if let identity = HostFiles.identity(of: path),
      let own = ImageCreator.filesInUse(by: [image])[identity]
    {
      throw EngineError(
        .invalidArgument, "'\(path)' cannot be the overlay: the image itself lies in '\(own)'", path: path)
    }
    try require(try open(path, .readOnly, options), over: image, backing)
  }

  private static func require(_ top: ChainMember, over image: ImageChain, _ wanted: BackingReference)
    throws(EngineError)
  {
    let path = image.members[0].path
    func refusal(_ reason: String) -> EngineError {
      EngineError(
        .invalidArgument, "'\(top.path)' is there and is no overlay of '\(path)': \(reason)", path: top.path)
    }
    guard top.formatName == FormatCatalog.overlay.name else {
      throw refusal("it is no \(FormatCatalog.overlay.name) image, but \(top.formatName)")
    }
    guard let backing = top.layer.backing else { throw refusal("it has no backing file") }
    guard isSame(backing, namedBy: top.path, image, wanted) else {
      throw refusal("its backing file is '\(backing.name)'")
    }
    guard let format = backing.format, format != wanted.format else { return }
    throw refusal("it takes that for a \(format) image, here it is opened as \(wanted.format ?? "another")")
  }

  private static func isSame(
    _ backing: BackingReference, namedBy path: String, _ image: ImageChain, _ wanted: BackingReference
  ) -> Bool {
    if let text = ImageName.jsonText(of: wanted.name) {
      guard let other = ImageName.jsonText(of: backing.name) else { return false }
      guard let a = try? NodeOptions(json: text), let b = try? NodeOptions(json: other) else { return false }
      return a == b
    }
    guard ImageName.jsonText(of: backing.name) == nil, let place = backing.wantedPath(namedBy: path),
      let identity = HostFiles.identity(of: place)
    else { return false }
    return identity == image.members[0].hostFiles.first?.identity
  }

  private static func formatName(of image: ImageChain) -> String {
    let member = image.members[0]
    return member.isPlain ? FormatCatalog.plain.name : member.formatName
  }

  /// A name by which whoever opens the overlay alone gets the same disk. Throws where no name says that.
  private static func recordedName(of image: ImageChain) throws(EngineError) -> String {
    let member = image.members[0]
    func refusal(_ reason: String) -> EngineError {
      EngineError(
        .unsupported,
        "An overlay that is kept cannot lie over '\(member.path)': \(reason); a temporary one can",
        path: member.path)
    }
    guard let node = member.node else {
      throw refusal("the name of an image does not say which snapshot is meant")
    }
    guard !member.hostFiles.isEmpty else { throw refusal("it is no file") }
    var rest = node
    guard rest.take("backing") == nil, !rest.takeChild("backing").namesFile else {
      throw refusal("what lies below it is given here, and not recorded in it")
    }
    if let last = image.members.last, !last.isMissing, last.layer.backing != nil {
      throw refusal("'\(last.path)' was opened without what lies below it")
    }
    return try member.nodeName.withWholePaths().text
  }
}
