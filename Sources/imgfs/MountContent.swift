import FormatEngine

/// What a mount shows, from its opening to its end.
struct MountContent {
  let fileSystem: FileSystem
  /// Whether anything can be written: what was opened to be written may only be there to be read.
  let isWritable: Bool
  /// Closes the images: all that was written is on disk when it returns.
  let close: () throws(EngineError) -> Void
  /// To be told of the mount: what is opened must not lead into it.
  let servedTree: ServedTree
  /// Closes those of several images that nobody uses.
  var idleCloser: IdleCloser?

  /// `progress` hears of what is opened now.
  static func open(
    _ options: MountOptions, _ opening: Opening, _ progress: Progress = .none
  ) throws(EngineError) -> MountContent {
    if options.forcesSharing {
      Terminal.complain(
        "warning: '\(options.sourceName)' may be changing: what is seen may be stale, or not fit together")
    }
    if options.images.count == 1, !ShelfScanner.isFolderOfImages(options.images[0]) {
      return try one(options, opening, progress)
    }
    return try several(options, opening)
  }

  /// One image: it is open from now on.
  private static func one(_ options: MountOptions, _ opening: Opening, _ progress: Progress)
    throws(EngineError) -> MountContent
  {
    let opened = try opening.open(options.images[0], progress)
    let chain = opened.chain
    var access = access(options)
    access.isWritable = chain.isWritable
    let session = ImageSession(chain, access: access, replacesChain: opened.overlay != nil)
    let requests = requests(
      options, isWritable: chain.isWritable, commit: opened.overlay.map { .commit($0, of: session) }
    ) { () throws(EngineError) in try session.flush() }
    let fileSystem = FileSystem(session, requests: requests)
    let close = { () throws(EngineError) in
      do throws(EngineError) {
        try session.close()
      } catch {
        throw error.whileTrying("Could not close '\(session.name)'")
      }
    }
    return MountContent(
      fileSystem: fileSystem, isWritable: chain.isWritable, close: close, servedTree: opening.servedTree)
  }

  /// Several images: each is opened when somebody looks at it.
  private static func several(_ options: MountOptions, _ opening: Opening) throws(EngineError)
    -> MountContent
  {
    if let conflict = options.conflictWithSeveral { throw .invalid(conflict) }
    var settings = ImageShelf.Settings(
      access: access(options), idleSeconds: Double(options.idleSeconds), format: options.format)
    settings.access.isWritable = options.takesWrites
    settings.servedTree = opening.servedTree
    settings.hasOverlays = options.overlay != nil
    let links = try opening.links(ofFolders: options.images.filter { ShelfScanner.isFolderOfImages($0) })
    settings.links = links
    let shelf = try ImageShelf(options.images, settings) { (path) throws(EngineError) in
      try opening.open(path, within: try links.bounds(of: path)).chain
    }
    let commit = MountRequest { () throws(EngineError) in
      throw .unsupported("The overlays of several images cannot be folded in")
    }
    let requests = requests(
      options, isWritable: options.takesWrites, commit: settings.hasOverlays ? commit : nil
    ) { () throws(EngineError) in try shelf.flush() }
    let fileSystem = FileSystem(shelf, requests: requests)
    return MountContent(
      fileSystem: fileSystem, isWritable: options.takesWrites,
      close: { () throws(EngineError) in try shelf.close() }, servedTree: opening.servedTree,
      idleCloser: IdleCloser(shelf))
  }

  /// What can be asked of the mount.
  static func requests(
    _ options: MountOptions, isWritable: Bool, commit: MountRequest?,
    flush: @escaping @Sendable () throws(EngineError) -> Void
  ) -> [String: MountRequest] {
    var requests: [String: MountRequest] = [:]
    requests[MountRequest.commitName] = commit
    guard isWritable else { return requests }
    // What is thrown away afterwards need not get on disk.
    let isKept = options.overlay != .temporary
    requests[MountRequest.flushName] = MountRequest { () throws(EngineError) in if isKept { try flush() } }
    return requests
  }

  private static func access(_ options: MountOptions) -> ImageSession.Access {
    ImageSession.Access(mayShrink: options.allowsShrinking, isShared: options.forcesSharing)
  }
}
