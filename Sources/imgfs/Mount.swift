import FormatEngine
import Glibc

/// A mount from the command line to its end.
enum Mount {
  /// Returns when the tree is unmounted: in the background process, or in the one that was started where
  /// it stays in front.
  static func run(_ given: MountOptions) throws(EngineError) {
    var options = given
    if let namespace = options.namespace { try MountNamespace.enter(namespace, names: options.names) }
    if options.isRehearsal {
      // Nothing is to be made or mended by it.
      (options.givenAccess, options.overlay) = (.readOnly, nil)
      let secrets = try SecretArguments.read(options)
      try MountContent.open(options, Opening(options, secrets)).close()
      return
    }
    try MountPoint.requireDevice()
    let mountPoint = try MountPoint(options.mountPoint)
    // Found now: the background process is in another folder when it removes the file.
    let pidFile = options.pidFile.map { ImageName.join($0, toFolderOf: HostFiles.currentFolder) }
    let background = options.isForeground ? nil : try Background.enter(mountPoint: mountPoint.path)
    SignalWatch.ignoreFaults()
    let unmounter = try WaitingUnmounter.start()
    defer { unmounter?.finish() }
    // That process does not know them. What comes through a descriptor is gone afterwards.
    let secrets = try SecretArguments.read(options)

    // What takes long may be ended by Ctrl-C.
    let content = try WaitingLine.during("Opening '\(options.sourceName)'") {
      (progress) throws(EngineError) in
      try MountContent.open(options, Opening(options, secrets), progress)
    }
    SignalWatch.blockSignals()
    do throws(EngineError) {
      try serve(content, options, at: mountPoint, background, unmounter, pidFile)
    } catch {
      try? content.close()
      throw error
    }
    try content.close()
  }

  private static func serve(
    _ content: MountContent, _ options: MountOptions, at mountPoint: MountPoint, _ background: Background?,
    _ unmounter: WaitingUnmounter?, _ pidFile: String?
  ) throws(EngineError) {
    var options = options
    if !content.isWritable { options.givenAccess = .readOnly }
    guard let process = ServingProcess(id: getpid()) else {
      throw EngineError(.system(errno: ENOENT), "Could not read '/proc/self/stat': is /proc mounted?")
    }
    let keepsFolder = options.overlay != nil
    let context = FuseContext(content.fileSystem, options, mountPoint: mountPoint.path, process: process) {
      // The image below an overlay is opened again when that is folded in.
      background?.mountIsReady(keepingFolder: keepsFolder)
    }
    let fuse = try FuseSession(context, options, at: mountPoint.path, unmounter)
    defer { fuse.close() }
    // Before the first request.
    if let number = context.mount.deviceNumber {
      content.servedTree.start(major: number.major, minor: number.minor)
    }
    try Confinement(degree: options.refusesUnusualCalls ? .strict : .usual).enter()
    content.idleCloser?.start()
    defer { content.idleCloser?.end() }
    var written: PidFile?
    if let pidFile { written = try PidFile(pidFile, process: process.id) }
    defer { written?.remove() }
    try fuse.run(isSingleThreaded: options.isSingleThreaded)
  }
}
