internal import CLinux
import Glibc

/// Wakes a thread that waits for other things, too: a descriptor that can be read from once somebody called `raise`.
final class WakeSignal: Sendable {
  let descriptor: CInt

  init() throws(EngineError) {
    descriptor = eventfd(0, CInt(EFD_NONBLOCK | EFD_CLOEXEC))
    guard descriptor >= 0 else { throw .systemCall("Could not create an event descriptor", errno: errno) }
  }

  deinit { close(descriptor) }

  func raise() { eventfd_write(descriptor, 1) }

  /// Calls of `raise` so far are forgotten.
  func clear() {
    var count: eventfd_t = 0
    _ = unsafe eventfd_read(descriptor, &count)
  }

  /// Waits until somebody calls `raise`, or has.
  func wait() {
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while unsafe poll(&request, 1, -1) < 0 && errno == EINTR {}
  }
}
