import FormatEngine
import Glibc

/// A mount from the command line to its end.
enum Mount {
  /// Returns when the tree is unmounted: in the background process, or in the one that was started where
  /// it stays in front.
  static func run(_ options: MountOptions) throws(EngineError) {
    try MountPoint.requireDevice()
    let mountPoint = try MountPoint(options.mountPoint)
    // Found now: the background process is in another folder when it removes the file.
    let pidFile = options.pidFile.map { ImageName.join($0, toFolderOf: currentFolder) }
    let background = options.isForeground ? nil : try Background.enter(mountPoint: mountPoint.path)
    SignalWatch.blockSignals()

    let session = try open(options)
    defer { closeImage(session, options) }
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
  private static func closeImage(_ session: ImageSession, _ options: MountOptions) {
    do throws(EngineError) {
      try session.close()
    } catch {
      Terminal.complain("Could not close '\(options.image)': \(error.message)")
    }
  }

  private static func open(_ options: MountOptions) throws(EngineError) -> ImageSession {
    var opening = OpenOptions(format: options.format, access: options.isWritable ? .readWrite : .readOnly)
    // The kernel keeps what was read of the files: it must stay true.
    opening.sharing = .readersOnly
    opening.backing = options.followsBacking ? .follow : .ignore
    do throws(EngineError) {
      let chain = try ImageOpener.open(options.image, opening)
      // Only raw takes a file without a byte, and then there is nothing to mount. With `--format raw` it is meant.
      if options.format == nil, try chain.members[0].file.byteCount() == 0 {
        throw .invalid("The file is empty")
      }
      let access = ImageSession.Access(isWritable: chain.isWritable, mayShrink: options.mayShrink)
      return ImageSession(chain, access: access)
    } catch {
      let prefix = "Could not open '\(options.image)'"
      throw error.message.hasPrefix(prefix) ? error : error.whileTrying(prefix)
    }
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
