import FormatEngine
import Glibc
import Synchronization

/// A thread that closes the images of a shelf that nobody uses.
final class IdleCloser: Sendable {
  private let shelf: ImageShelf
  private let isEnding = Atomic<Bool>(false)

  init(_ shelf: ImageShelf) { self.shelf = shelf }

  /// Starts the thread. Where there can be none, images stay open.
  func start() { _ = DetachedThread.start { self.run() } }

  /// The thread ends with its next look.
  func end() { isEnding.store(true, ordering: .relaxed) }

  private func run() {
    let pause = UInt32(min(max(shelf.settings.idleSeconds / 4, 0.05), 5) * 1e6)
    while !isEnding.load(ordering: .relaxed) {
      usleep(pause)
      shelf.closeIdle()
    }
  }
}
