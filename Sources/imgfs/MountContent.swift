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
    if options.forcesSharing {
      Terminal.complain(
        "warning: '\(options.sourceName)' may be changing: what is seen may be stale, or not fit together")
    }
    if options.images.count == 1, !ShelfScanner.isFolderOfImages(options.images[0]) {
      return try one(&options, secrets)
    }
    return try several(options, secrets, mountPoint)
  }

  /// One image: it is open from now on.
  private static func one(_ options: inout MountOptions, _ secrets: SecretStore) throws(EngineError)
    -> MountContent
  {
    let chain = try open(options.images[0], options, secrets)
    var access = access(options)
    access.isWritable = chain.isWritable
    if !chain.isWritable && options.access == .readWrite { options.givenAccess = .readOnly }
    let session = ImageSession(chain, access: access)
    return MountContent(fileSystem: FileSystem(session)) {
      complaining { () throws(EngineError) in try session.close() }
    }
  }

  /// An image as the options have it, or only for reading where it cannot be written.
  private static func open(_ image: String, _ options: MountOptions, _ secrets: SecretStore)
    throws(EngineError) -> ImageChain
  {
    do throws(EngineError) {
      return try Opening(options, secrets).open(image)
    } catch {
      guard options.access == .readWrite, error.meansOnlyReading else { throw error }
      var options = options
      options.givenAccess = .readOnly
      let chain = try Opening(options, secrets).open(image)
      Terminal.complain("warning: '\(image)' is mounted read-only: \(error.message)")
      return chain
    }
  }

  /// Several images: each is opened when somebody looks at it.
  private static func several(_ options: MountOptions, _ secrets: SecretStore, _ mountPoint: String)
    throws(EngineError) -> MountContent
  {
    var settings = ImageShelf.Settings(
      access: access(options), idleSeconds: Double(options.idleSeconds), format: options.format)
    settings.access.isWritable = options.isWritable
    settings.mountPoint = mountPoint
    let shelf = try ImageShelf(options.images, settings) { (path) throws(EngineError) in
      try open(path, options, secrets)
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
