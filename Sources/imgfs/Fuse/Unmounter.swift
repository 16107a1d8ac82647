internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// Takes a tree away and waits until the process that served it has ended.
enum Unmounter {
  /// A process that has nothing to write ends at once, and one that has much to write goes on for as long as it takes.
  /// One that reads, writes and counts nothing for ten minutes waits for storage that hangs.
  private static let patienceSeconds = 600.0
  /// How often that is looked at.
  private static let lookMilliseconds: CInt = 1000
  /// For a second, at 20 ms each: a loop device lets go of its file only a moment after the file system on
  /// it is unmounted.
  private static let busyAttempts = 50

  static func unmount(_ given: String) throws(EngineError) {
    let mount = try RunningMount(given)
    // Before the mount is gone: afterwards nobody knows the process any more.
    let process = mount.process
    let handle = process.map { pidfd_open($0.id, 0) } ?? -1
    defer { if handle >= 0 { close(handle) } }
    try WaitingLine.during("Waiting until all of '\(given)' is written") { (_) throws(EngineError) in
      if let process { try flush(mount, process) }
      try detach(mount)
      // The number may have been given to another process between the question and pidfd_open.
      guard let process, handle >= 0, process.isRunning else { return }
      try wait(for: process, whose: "'\(given)' is unmounted") { milliseconds in
        var waiting = pollfd(fd: handle, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&waiting, 1, milliseconds) > 0
      }
    }
  }

  /// The answer to what a mount was asked, when it is there.
  private final class Answer: Sendable {
    let failure = Guarded<RunningMount.Refusal?>(nil)
    let isThere = Atomic<Bool>(false)

    func comes(within milliseconds: CInt) -> Bool {
      for _ in 0..<milliseconds {
        if isThere.load(ordering: .acquiring) { return true }
        usleep(1000)
      }
      return false
    }
  }

  /// Puts on disk what was written, as long as somebody can be told that it does not work, and do something about it. Who
  /// may not ask for that may unmount all the same.
  private static func flush(_ mount: RunningMount, _ process: ServingProcess) throws(EngineError) {
    guard !mount.isReadOnly else { return }
    let answer = Answer()
    let isAsked = DetachedThread.start {
      let failure = mount.ask(for: MountRequest.flushName)
      answer.failure.withLock { $0 = failure }
      answer.isThere.store(true, ordering: .releasing)
    }
    guard isAsked else { return }
    try wait(for: process, whose: "'\(mount.given)' stays mounted") { answer.comes(within: $0) }
    // Without a reason of its own it is the kernel that refuses, and not the image.
    guard let failure = answer.failure.withLock({ $0 }), failure.hasReason else { return }
    throw failure.error.whileTrying(
      "'\(mount.given)' stays mounted, since not all of it could be written (umount and fusermount3 -u do not care)"
    )
  }

  /// Waits until `isDone`, which waits for so many milliseconds itself. Throws where the process does nothing meanwhile.
  private static func wait(
    for process: ServingProcess, whose state: String, isDone: (_ milliseconds: CInt) -> Bool
  ) throws(EngineError) {
    var seen = process.activity
    var seenAt = HostClock.steadySeconds
    while !isDone(lookMilliseconds) {
      let now = process.activity
      if now != seen { (seen, seenAt) = (now, HostClock.steadySeconds) }
      guard HostClock.steadySeconds - seenAt < patienceSeconds else {
        throw EngineError(
          .system(errno: ETIMEDOUT),
          "\(state), and process \(process.id) has done nothing for \(Int(patienceSeconds / 60)) minutes")
      }
    }
  }

  /// Content where the mount is gone already: its process was about to unmount it, or somebody else was quicker. What is
  /// there instead by then is not touched.
  private static func detach(_ mount: RunningMount) throws(EngineError) {
    let path = mount.path
    var number: CInt = 0
    for _ in 0..<busyAttempts {
      switch mount.place {
      case .gone: return
      case .covered:
        throw EngineError(
          .system(errno: EBUSY), "Could not unmount '\(mount.given)': something else is mounted over it",
          path: mount.given)
      case .onTop: break
      }
      if unsafe path.withHostBytes({ unsafe umount2($0, CInt(UMOUNT_NOFOLLOW)) }) == 0 { return }
      number = errno
      // Users may unmount what they mounted, with the help of a program that may.
      if number == EPERM, try runHelper("-u", path) { return }
      guard number == EPERM || number == EBUSY else { break }
      usleep(20_000)
    }
    if mount.place == .gone { return }
    let given = mount.given
    throw .systemCall("Could not unmount '\(given)'", errno: number == EPERM ? EBUSY : number, path: given)
  }

  /// Takes a mount away at once, whoever still has files open there.
  static func detachLazily(_ path: String) {
    let flags = CInt(MNT_DETACH) | CInt(UMOUNT_NOFOLLOW)
    if unsafe path.withHostBytes({ unsafe umount2($0, flags) }) != 0, errno == EPERM {
      _ = try? runHelper("-uz", path)
    }
  }

  private static func runHelper(_ action: String, _ path: String) throws(EngineError) -> Bool {
    let words = CStrings(["fusermount3", action, "-q", "--", path])
    var child: pid_t = 0
    let result = unsafe posix_spawnp(&child, "fusermount3", nil, nil, words.pointers, environ)
    guard result == 0 else { throw .systemCall("Could not run 'fusermount3'", errno: result) }
    var status: CInt = 0
    var ended: pid_t = 0
    repeat { ended = unsafe waitpid(child, &status, 0) } while ended < 0 && errno == EINTR
    return ended == child && status == 0
  }
}
