import FormatEngine

/// What a mount shows, from its opening to its end.
struct MountContent {
  let fileSystem: FileSystem
  /// Closes the images. What goes wrong then nobody waits for any more: it goes to the terminal, if there is one.
  let close: () -> Void

  /// `mountPoint` is where it will be mounted, without links. Where the image cannot be written, that is said, and the
  /// options say `ro` from here on: mount(8) asks for `rw` wherever a user does not ask for `ro`.
  static func open(_ options: inout MountOptions, _ secrets: SecretStore, at mountPoint: String)
    throws(EngineError) -> MountContent
  {
    guard options.overlay == nil else { throw .unsupported("Overlays are not supported yet") }
    if options.forcesSharing {
      Terminal.complain(
        "warning: '\(options.sourceName)' may be changing: what is seen may be stale, or not fit together")
    }
    // Once: names of folders are relative to where the program was started.
    let opening = try Opening(options, secrets)
    if options.images.count == 1, !ShelfScanner.isFolderOfImages(options.images[0]) {
      return try one(&options, opening)
    }
    return try several(options, opening, mountPoint)
  }

  /// One image: it is open from now on.
  private static func one(_ options: inout MountOptions, _ opening: Opening) throws(EngineError)
    -> MountContent
  {
    let chain = try opening.open(options.images[0])
    var access = access(options)
    access.isWritable = chain.isWritable
    if !chain.isWritable && options.access == .readWrite { options.givenAccess = .readOnly }
    let session = ImageSession(chain, access: access)
    return MountContent(fileSystem: FileSystem(session)) {
      complaining { () throws(EngineError) in try session.close() }
    }
  }

  /// Several images: each is opened when somebody looks at it.
  private static func several(_ options: MountOptions, _ opening: Opening, _ mountPoint: String)
    throws(EngineError) -> MountContent
  {
    var settings = ImageShelf.Settings(
      access: access(options), idleSeconds: Double(options.idleSeconds), format: options.format)
    settings.access.isWritable = options.isWritable
    settings.mountPoint = mountPoint
    let shelf = try ImageShelf(options.images, settings) { (path) throws(EngineError) in
      try opening.open(path)
    }
    let closer = IdleCloser(shelf)
    return MountContent(fileSystem: FileSystem(shelf)) {
      closer.end()
      complaining { () throws(EngineError) in try shelf.close() }
    }
  }

  private static func access(_ options: MountOptions) -> ImageSession.Access {
    ImageSession.Access(mayShrink: options.mayShrink, isShared: options.forcesSharing)
  }

  private static func complaining(_ body: () throws(EngineError) -> Void) {
    do throws(EngineError) { try body() } catch { Terminal.complain(error.message) }
  }
}
