import FormatEngine
import Glibc

/// A mount from the command line to its end.
enum Mount {
  /// Returns when the tree is unmounted: in the background process, or in the one that was started where
  /// it stays in front.
  static func run(_ options: MountOptions) throws(EngineError) {
    if let namespace = options.namespace { try MountNamespace.enter(namespace) }
    // What comes through a descriptor is gone afterwards.
    let secrets = try SecretArguments.read(options)
    if options.isRehearsal {
      _ = try open(options, secrets)
      return
    }
    try MountPoint.requireDevice()
    let mountPoint = try MountPoint(options.mountPoint)
    // Found now: the background process is in another folder when it removes the file.
    let pidFile = options.pidFile.map { ImageName.join($0, toFolderOf: currentFolder) }
    let background = options.isForeground ? nil : try Background.enter(mountPoint: mountPoint.path)
    SignalWatch.blockSignals()

    let chain = try WaitingLine.during("Opening '\(options.sourceName)'") { () throws(EngineError) in
      try open(options, secrets)
    }
    if options.forcesSharing {
      Terminal.complain(
        "warning: '\(options.sourceName)' may be changing: what is seen may be stale or not fit together")
    }
    guard let process = ServingProcess(id: getpid()) else {
      throw EngineError(.system(errno: ENOENT), "Could not read '/proc/self/stat': is /proc mounted?")
    }
    let context = FuseContext(FileSystem(chain), options, mountPoint: mountPoint.path, process: process) {
      background?.mountIsReady()
    }
    let session = try FuseSession(context, options, at: mountPoint.path)
    defer { session.close() }
    if let pidFile { try write("\(process.id)\n", to: pidFile) }
    defer { if let pidFile { _ = unsafe pidFile.withHostBytes { unsafe unlink($0) } } }
    guard session.run(isSingleThreaded: options.isSingleThreaded) else {
      throw EngineError(.system(errno: EIO), "Serving '\(options.mountPoint)' ended with an error")
    }
  }

  private static func open(_ options: MountOptions, _ secrets: SecretStore) throws(EngineError) -> ImageChain
  {
    guard options.images.count == 1 else {
      throw .unsupported("Several images at once are not supported yet")
    }
    guard !options.takesWrites else { throw .unsupported("Writing is not supported yet") }
    return try Opening(options, secrets).open(options.images[0])
  }

  private static func write(_ text: String, to path: String) throws(EngineError) {
    let descriptor = unsafe path.withHostBytes {
      unsafe Glibc.open($0, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    }
    guard descriptor >= 0 else { throw .systemCall("Could not create '\(path)'", errno: errno, path: path) }
    Terminal.write(text, to: descriptor)
    close(descriptor)
  }

  /// With a slash at its end.
  private static var currentFolder: String {
    guard let path = unsafe getcwd(nil, 0) else { return "/" }
    defer { unsafe free(path) }
    return unsafe String(hostBytes: path) + "/"
  }
}
