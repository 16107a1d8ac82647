import FormatEngine

/// What a mount shows, from its opening to its end.
struct MountContent {
  let fileSystem: FileSystem
  /// Whether anything can be written: what was opened to be written may only be there to be read.
  let isWritable: Bool
  /// Closes the images: all that was written is on disk when it returns.
  let close: () throws(EngineError) -> Void
  /// Closes those of several images that nobody uses.
  var idleCloser: IdleCloser?

  /// `mountPoint` is where it will be mounted, without links.
  static func open(_ options: MountOptions, _ opening: Opening, at mountPoint: String) throws(EngineError)
    -> MountContent
  {
    if options.forcesSharing {
      Terminal.complain(
        "warning: '\(options.sourceName)' may be changing: what is seen may be stale, or not fit together")
    }
    if options.images.count == 1, !ShelfScanner.isFolderOfImages(options.images[0]) {
      return try one(options, opening)
    }
    return try several(options, opening, mountPoint)
  }

  /// One image: it is open from now on.
  private static func one(_ options: MountOptions, _ opening: Opening) throws(EngineError) -> MountContent {
    let opened = try opening.open(options.images[0])
    let chain = opened.chain
    var access = access(options)
    access.isWritable = chain.isWritable
    let session = ImageSession(chain, access: access, replacesChain: opened.overlay != nil)
    let commit = opened.overlay.map { OverlayCommit($0, of: session) }
    return MountContent(fileSystem: FileSystem(session, commit: commit), isWritable: chain.isWritable) {
      () throws(EngineError) in
      do throws(EngineError) {
        try session.close()
      } catch {
        throw error.whileTrying("Could not close '\(session.name)'")
      }
    }
  }

  /// Several images: each is opened when somebody looks at it.
  private static func several(_ options: MountOptions, _ opening: Opening, _ mountPoint: String)
    throws(EngineError) -> MountContent
  {
    if let conflict = options.conflictWithSeveral { throw .invalid(conflict) }
    var settings = ImageShelf.Settings(
      access: access(options), idleSeconds: Double(options.idleSeconds), format: options.format)
    settings.access.isWritable = options.takesWrites
    settings.mountPoint = mountPoint
    settings.hasOverlays = options.overlay != nil
    let shelf = try ImageShelf(options.images, settings) { (path) throws(EngineError) in
      try opening.open(path).chain
    }
    var content = MountContent(fileSystem: FileSystem(shelf), isWritable: options.takesWrites) {
      () throws(EngineError) in try shelf.close()
    }
    content.idleCloser = IdleCloser(shelf)
    return content
  }

  private static func access(_ options: MountOptions) -> ImageSession.Access {
    ImageSession.Access(mayShrink: options.allowsShrinking, isShared: options.forcesSharing)
  }
}
