import FormatEngine
import Glibc
import Synchronization

/// A thread that closes the images of a shelf that nobody uses.
final class IdleCloser: Sendable {
  private let shelf: ImageShelf
  private let isEnding = Atomic<Bool>(false)

  init(_ shelf: ImageShelf) { self.shelf = shelf }

  /// Starts the thread. Where there can be none, images stay open.
  func start() {
    var thread = pthread_t()
    let argument = unsafe Unmanaged.passRetained(self).toOpaque()
    let result = unsafe pthread_create(&thread, nil, { unsafe IdleCloser.run(unsafe $0) }, argument)
    if result != 0 {
      unsafe Unmanaged<IdleCloser>.fromOpaque(argument).release()
      return
    }
    pthread_detach(thread)
  }

  /// The thread ends with its next look.
  func end() { isEnding.store(true, ordering: .relaxed) }

  private static func run(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument = unsafe argument else { return nil }
    // SAFETY: `init` retained the object for this thread.
    let closer = unsafe Unmanaged<IdleCloser>.fromOpaque(argument).takeRetainedValue()
    let pause = UInt32(min(max(closer.shelf.settings.idleSeconds / 4, 0.05), 5) * 1e6)
    while !closer.isEnding.load(ordering: .relaxed) {
      usleep(pause)
      closer.shelf.closeIdle()
    }
    return nil
  }
}
