import FormatEngine
import Glibc

/// A mount from the command line to its end.
enum Mount {
  /// Returns when the tree is unmounted: in the background process, or in the one that was started where
  /// it stays in front.
  static func run(_ given: MountOptions) throws(EngineError) {
    var options = given
    if let namespace = options.namespace { try MountNamespace.enter(namespace) }
    // What comes through a descriptor is gone afterwards.
    let secrets = try SecretArguments.read(options)
    if options.isRehearsal { return try open(&options, secrets).close() }
    try MountPoint.requireDevice()
    let mountPoint = try MountPoint(options.mountPoint)
    // Found now: the background process is in another folder when it removes the file.
    let pidFile = options.pidFile.map { ImageName.join($0, toFolderOf: WorkingFolder.path) }
    let background = options.isForeground ? nil : try Background.enter(mountPoint: mountPoint.path)
    SignalWatch.blockSignals()

    let session = try WaitingLine.during("Opening '\(options.sourceName)'") { () throws(EngineError) in
      try open(&options, secrets)
    }
    defer { closeImage(session) }
    guard let process = ServingProcess(id: getpid()) else {
      throw EngineError(.system(errno: ENOENT), "Could not read '/proc/self/stat': is /proc mounted?")
    }
    let context = FuseContext(FileSystem(session), options, mountPoint: mountPoint.path, process: process) {
      background?.mountIsReady()
    }
    let fuse = try FuseSession(context, options, at: mountPoint.path)
    defer { fuse.close() }
    if let pidFile { try write("\(process.id)\n", to: pidFile) }
    defer { if let pidFile { _ = unsafe pidFile.withHostBytes { unsafe unlink($0) } } }
    guard fuse.run(isSingleThreaded: options.isSingleThreaded) else {
      throw EngineError(.system(errno: EIO), "Serving '\(options.mountPoint)' ended with an error")
    }
  }

  /// When nothing can be written any more.
  private static func closeImage(_ session: ImageSession) {
    do throws(EngineError) {
      try session.close()
    } catch {
      Terminal.complain("Could not close '\(session.name)': \(error.message)")
    }
  }

  /// Opens what is to be mounted. Where it cannot be written, that is said, and the options say `ro` from here on:
  /// mount(8) asks for `rw` wherever a user does not ask for `ro`.
  private static func open(_ options: inout MountOptions, _ secrets: SecretStore) throws(EngineError)
    -> ImageSession
  {
    guard options.images.count == 1 else {
      throw .unsupported("Several images at once are not supported yet")
    }
    guard options.overlay == nil else { throw .unsupported("Overlays are not supported yet") }
    let image = options.images[0]
    let chain: ImageChain
    do throws(EngineError) {
      chain = try Opening(options, secrets).open(image)
    } catch {
      guard options.access == .readWrite, error.meansOnlyReading else { throw error }
      options.givenAccess = .readOnly
      chain = try Opening(options, secrets).open(image)
      Terminal.complain("warning: '\(image)' is mounted read-only: \(error.message)")
    }
    if options.forcesSharing {
      Terminal.complain(
        "warning: '\(image)' may be changing: what is seen may be stale, or not fit together")
    }
    let access = ImageSession.Access(
      isWritable: chain.isWritable, mayShrink: options.mayShrink, isShared: options.forcesSharing)
    return ImageSession(chain, access: access)
  }

  private static func write(_ text: String, to path: String) throws(EngineError) {
    let descriptor = unsafe path.withHostBytes {
      unsafe Glibc.open($0, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    }
    guard descriptor >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    Terminal.write(text, to: descriptor)
    close(descriptor)
  }
}

/// The folder that relative names start from.
enum WorkingFolder {
  /// With a slash at its end.
  static var path: String {
    guard let path = unsafe getcwd(nil, 0) else { return "/" }
    defer { unsafe free(path) }
    return unsafe String(hostBytes: path) + "/"
  }
}
