internal import CFuse
import FormatEngine
import Glibc
import Synchronization

/// Has the kernel ask again how long a file is.
///
/// A kernel that keeps writes back keeps its own idea of a file's size, too: what somebody writes past the end of a disk
/// makes the file longer there, and nothing that a server answers makes it shorter again. Only ftruncate(2) does. So it
/// is called, through the mount, by a thread that answers no requests; the request that comes of it changes nothing, and
/// is answered with the true size.
final class SizeCorrection: Sendable {
  private struct State {
    /// Inode numbers of the files.
    var waiting: [UInt64] = []
    var isRunning = false
  }

  private let fileSystem: FileSystem
  private let mount: OwnMount
  private let threads: OwnThreads
  private let state = Guarded(State())
  /// The thread that calls ftruncate; 0: none.
  private let thread = Atomic<pid_t>(0)

  init(_ fileSystem: FileSystem, _ mount: OwnMount, _ threads: OwnThreads) {
    self.fileSystem = fileSystem
    self.mount = mount
    self.threads = threads
  }

  /// Whether a request of this thread comes from here.
  func isRunning(in thread: pid_t) -> Bool { thread != 0 && thread == self.thread.load(ordering: .acquiring) }

  /// Returns at once; the file's size is right a moment later.
  func correct(_ id: UInt64) {
    let mustStart = state.withLock { state in
      if !state.waiting.contains(id) { state.waiting.append(id) }
      defer { state.isRunning = true }
      return !state.isRunning
    }
    guard mustStart else { return }
    if !threads.run({ self.correctAll() }) { state.withLock { $0.isRunning = false } }
  }

  private func correctAll() {
    thread.store(gettid(), ordering: .releasing)
    while let id = next() { correctNow(id) }
  }

  private func next() -> UInt64? {
    state.withLock { state in
      if !state.waiting.isEmpty { return state.waiting.removeFirst() }
      thread.store(0, ordering: .releasing)
      state.isRunning = false
      return nil
    }
  }

  private func correctNow(_ id: UInt64) {
    guard let size = try? fileSystem.attributes(of: id).byteCount else { return }
    if mount.withFile(id, O_WRONLY, { ftruncate($0, off_t(clamping: size)) == 0 }) == true {
      fileSystem.openFiles.noteCorrection(of: id)
    }
  }
}
