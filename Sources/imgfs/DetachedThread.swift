import Glibc

/// A thread that nobody waits for.
enum DetachedThread {
  private final class Work: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Runs `body` beside whoever calls. False where there can be no more threads: it is not run then.
  static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    var thread = pthread_t()
    let argument = unsafe Unmanaged.passRetained(Work(body)).toOpaque()
    let result = unsafe pthread_create(&thread, nil, { unsafe DetachedThread.run(unsafe $0) }, argument)
    guard result == 0 else {
      unsafe Unmanaged<Work>.fromOpaque(argument).release()
      return false
    }
    pthread_detach(thread)
    return true
  }

  private static func run(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument = unsafe argument else { return nil }
    // SAFETY: `start` retained the object for this thread.
    unsafe Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
    return nil
  }
}
