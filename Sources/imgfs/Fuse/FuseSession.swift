internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// A mount, from its making to its end.
///
/// @unchecked: the main thread makes, runs and ends it; other threads only call fuse_session_exit, which
/// sets a flag.
@safe final class FuseSession: @unchecked Sendable {
  /// Two for each processor: one waits for storage while the other answers. More only get in each
  /// other's way: with ten threads on two processors small reads take twice as long.
  private static let maximumThreads = UInt32(clamping: min(16, max(4, 2 * sysconf(CInt(_SC_NPROCESSORS_ONLN)))))

  private let session: OpaquePointer
  private let context: FuseContext

  /// Prepares a session and mounts it. Callbacks come when it runs.
  init(_ context: FuseContext, _ options: MountOptions, at mountPoint: String) throws(EngineError) {
    FuseLog.start(isDebugging: options.isDebugging)
    self.context = context
    let words = CStrings(Self.arguments(for: options))
    var arguments = unsafe fuse_args(argc: CInt(words.count), argv: words.pointers, allocated: 0)
    var callbacks = FuseCallbacks.table()
    let userData = unsafe Unmanaged.passUnretained(context).toOpaque()
    // SAFETY: libfuse copies the table; the context lives as long as this object.
    let made = unsafe fuse_session_new(
      &arguments, &callbacks, MemoryLayout<fuse_lowlevel_ops>.size, userData)
    unsafe fuse_opt_free_args(&arguments)
    guard let made = unsafe made else {
      throw .invalid("Could not start FUSE: \(FuseLog.finish())")
    }
    unsafe session = made
    guard unsafe fuse_session_mount(session, mountPoint) == 0 else {
      unsafe fuse_session_destroy(session)
      throw EngineError(.system(errno: EIO), "Could not mount at '\(mountPoint)': \(FuseLog.finish())")
    }
    _ = FuseLog.finish()
  }

  /// Unmounts, where nobody else has, and ends the session: the last call, made once. (Not the work of
  /// `deinit`: the signals' thread may still hold the object when the process ends.)
  func close() {
    unsafe fuse_session_unmount(session)
    unsafe fuse_session_destroy(session)
  }

  /// Answers requests until the tree is unmounted or a signal asks for its end. Says whether all went well.
  func run(isSingleThreaded: Bool) -> Bool {
    let watch = SignalWatch { unsafe fuse_session_exit(self.session) }
    defer { watch.finish() }
    if isSingleThreaded { return unsafe fuse_session_loop(session) >= 0 }
    let configuration = unsafe fuse_loop_cfg_create()
    defer { unsafe fuse_loop_cfg_destroy(configuration) }
    unsafe fuse_loop_cfg_set_clone_fd(configuration, 1)
    unsafe fuse_loop_cfg_set_max_threads(configuration, Self.maximumThreads)
    unsafe fuse_loop_cfg_set_idle_threads(configuration, Self.maximumThreads)
    return unsafe imgfs_session_loop_mt(session, configuration) >= 0
  }

  /// libfuse's own command line.
  private static func arguments(for options: MountOptions) -> [String] {
    var items = ["ro", "default_permissions", "subtype=imgfs"]
    if !options.passedOn.contains(where: { $0.hasPrefix("fsname=") }) { items.append("fsname=\(options.image)") }
    items += options.passedOn
    var arguments = ["imgfs"]
    for item in items { arguments += ["-o", escaped(item)] }
    if options.isDebugging { arguments.append("-d") }
    return arguments
  }

  /// libfuse takes commas for separators, and backslashes for what keeps them from being that.
  private static func escaped(_ item: String) -> String {
    String(item.flatMap { $0 == "," || $0 == "\\" ? ["\\", $0] : [$0] })
  }
}

/// Waits for SIGTERM, SIGINT and SIGHUP on a thread of its own, and gets the main thread out of libfuse's
/// loop when one comes.
///
/// The signals are blocked in all threads, so none is lost and none ends the process before it has
/// unmounted. libfuse's own handlers leave a moment in which they do not wake the loop.
final class SignalWatch: Sendable {
  private enum Phase { case waiting, ending, ended }

  private let phase = Mutex(Phase.waiting)
  private let end: @Sendable () -> Void
  private let mainThread: pthread_t

  /// Blocks these signals, and no others, for this thread and all that it starts: to be called before
  /// there are any. Whoever started this process may have blocked more.
  static func blockSignals() {
    var signals = signalSet
    unsafe pthread_sigmask(SIG_SETMASK, &signals, nil)
    signal(SIGPIPE, SIG_IGN)
  }

  /// `end` is called once, when a signal comes before `finish`.
  init(end: @escaping @Sendable () -> Void) {
    self.end = end
    mainThread = pthread_self()
    // A handler that does nothing: the signal's only work is to interrupt the main thread's waiting.
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    unsafe sigaction(SIGUSR1, &action, nil)
    var thread = pthread_t()
    let argument = unsafe Unmanaged.passRetained(self).toOpaque()
    let result = unsafe pthread_create(&thread, nil, { unsafe SignalWatch.watch(unsafe $0) }, argument)
    if result != 0 {
      unsafe Unmanaged<SignalWatch>.fromOpaque(argument).release()
      return
    }
    pthread_detach(thread)
  }

  /// The loop is over: `end` is not called any more.
  func finish() { phase.withLock { $0 = .ended } }

  private static func watch(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument = unsafe argument else { return nil }
    // SAFETY: `init` retained the object for this thread.
    let watch = unsafe Unmanaged<SignalWatch>.fromOpaque(argument).takeRetainedValue()
    var signals = signalSet
    var received: CInt = 0
    while unsafe sigwait(&signals, &received) != 0 {}
    watch.phase.withLock { phase in
      guard phase == .waiting else { return }
      watch.end()
      phase = .ending
    }
    // Again and again: the main thread may have been about to wait when the first one came.
    while watch.phase.withLock({ $0 == .ending }) {
      pthread_kill(watch.mainThread, SIGUSR1)
      usleep(10_000)
    }
    return nil
  }

  private static var signalSet: sigset_t {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&signals, number) }
    return signals
  }
}
