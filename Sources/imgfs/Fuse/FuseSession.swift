internal import CFuse
import FormatEngine
import Glibc

/// A mount, from its making to its end.
///
/// @unchecked: the main thread makes, runs and ends it; other threads only call fuse_session_exit, which
/// sets a flag.
@safe final class FuseSession: @unchecked Sendable {
  /// Threads that answer requests: two for each processor, so that some answer while others wait for storage.
  /// None ends before the session does: starting and ending them under load costs more than they do (random reads
  /// of 4 KiB on two processors: 200,000 a second with 2 to 4 that stay, 50,000 with 2 that stay and more that
  /// come and go; from 8 on they get in each other's way).
  private static let threads = UInt32(clamping: min(16, max(4, 2 * sysconf(CInt(_SC_NPROCESSORS_ONLN)))))

  private let session: OpaquePointer
  private let context: FuseContext
  private let unmounter: WaitingUnmounter?
  /// What went wrong while a signal ended it.
  private let failure = Guarded<EngineError?>(nil)

  /// Prepares a session and mounts it. Callbacks come when it runs.
  init(
    _ context: FuseContext, _ options: MountOptions, at mountPoint: String, _ unmounter: WaitingUnmounter?
  ) throws(EngineError) {
    FuseLog.start(isDebugging: options.isDebugging)
    self.context = context
    self.unmounter = unmounter
    let words = CStrings(Self.arguments(for: options))
    var arguments = unsafe fuse_args(argc: CInt(words.count), argv: words.pointers, allocated: 0)
    var callbacks = FuseCallbacks.table()
    let userData = unsafe Unmanaged.passUnretained(context).toOpaque()
    // SAFETY: libfuse copies the table; the context lives as long as this object.
    let made = unsafe imgfs_session_new(
      &arguments, &callbacks, MemoryLayout<fuse_lowlevel_ops>.size, userData)
    unsafe fuse_opt_free_args(&arguments)
    guard let made = unsafe made else {
      throw .invalid("Could not start FUSE: \(FuseLog.finish())")
    }
    unsafe session = made
    guard unsafe mountPoint.withHostBytes({ unsafe fuse_session_mount(made, $0) }) == 0 else {
      unsafe fuse_session_destroy(session)
      // Where there is nothing, fusermount3 has told the reason itself.
      let reason = FuseLog.finish()
      throw EngineError(
        .system(errno: EIO),
        "Could not mount at '\(mountPoint)': \(reason.isEmpty ? "fusermount3 failed" : reason)")
    }
    _ = FuseLog.finish()
    context.mount.start(device: unsafe fuse_session_fd(made))
    context.mount.setDropping { id in
      _ = unsafe fuse_lowlevel_notify_inval_inode(self.session, id, 0, 0)
    }
  }

  /// Unmounts, where nobody else has, and ends the session: the last call, made once. (Not the work of
  /// `deinit`: the signals' thread may still hold the object when the process ends.)
  func close() {
    context.mount.setDropping(nil)
    let place = context.mount.place
    switch place {
    case .at(let path):
      if let unmounter {
        unmounter.detach(path)
      } else if context.mount.detach(at: path) == nil {
        Unmounter.detachLazily(path)
      }
      if case .at = context.mount.place {
        Terminal.complain("'\(path)' stays mounted, without a process: it could not be unmounted")
      }
    case .covered(let path):
      Terminal.complain("'\(path)' stays mounted, without a process: something else is mounted over it")
    case .unmounted: break
    }
    unsafe fuse_session_destroy(session)
  }

  /// Answers requests until the tree is unmounted or a signal asks for its end. Throws what went wrong.
  func run(isSingleThreaded: Bool) throws(EngineError) {
    let watch = SignalWatch {
      // While requests are still answered: what the kernel has not written yet is written now.
      do throws(EngineError) {
        if self.context.isWritable { try self.context.mount.writeOut() }
      } catch {
        self.failure.withLock { $0 = error }
      }
      // What is half done is done first, for the same reason.
      self.context.ownThreads.finish()
      unsafe fuse_session_exit(self.session)
    }
    // Memory may be short because of what only we can write: we must not wait for it ourselves. Threads inherit this.
    if context.isWritable { imgfs_become_io_flusher() }
    let isWell = isSingleThreaded ? unsafe fuse_session_loop(session) >= 0 : runThreads()
    watch.finish()
    // The session and the images are closed next.
    context.ownThreads.finish()
    if let failure = failure.withLock({ $0 }) { throw failure }
    guard isWell else {
      throw EngineError(.system(errno: EIO), "Serving '\(context.mountPoint)' ended with an error")
    }
  }

  private func runThreads() -> Bool {
    let configuration = unsafe fuse_loop_cfg_create()
    defer { unsafe fuse_loop_cfg_destroy(configuration) }
    unsafe fuse_loop_cfg_set_clone_fd(configuration, 1)
    unsafe fuse_loop_cfg_set_max_threads(configuration, Self.threads)
    unsafe fuse_loop_cfg_set_idle_threads(configuration, Self.threads)
    return unsafe imgfs_session_loop_mt(session, configuration) >= 0
  }

  /// libfuse's own command line.
  private static func arguments(for options: MountOptions) -> [String] {
    var items = [options.takesWrites ? "rw" : "ro", "default_permissions", "subtype=imgfs"]
    if !options.passedOn.contains(where: { $0.hasPrefix("fsname=") }) {
      items.append("fsname=\(options.sourceName)")
    }
    items += options.passedOn
    var arguments = ["imgfs"]
    for item in items { arguments += ["-o", escaped(item)] }
    if options.isDebugging { arguments.append("-d") }
    return arguments
  }

  /// libfuse takes commas for separators, and backslashes for what keeps them from being that.
  private static func escaped(_ item: String) -> String {
    // Not by characters: a comma may have a mark above it.
    item.unicodeScalars.reduce(into: "") { result, scalar in
      if scalar == "," || scalar == "\\" { result += "\\" }
      result.unicodeScalars.append(scalar)
    }
  }
}
