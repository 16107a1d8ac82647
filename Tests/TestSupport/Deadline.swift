import FormatEngine
import Glibc
import Synchronization

/// Ends the test process when something takes too long: a hang in a test of hostile bytes is a failure
/// that must not wait for the CI's own time limit.
public enum Deadline {
  private struct Entry {
    var what: String
    var end: Double
  }

  private static let running = Guarded<[UInt64: Entry]>([:])
  private static let nextNumber = Atomic<UInt64>(0)

  /// Looks every second; started by the first use.
  private static let watchdog: Void = {
    var thread = pthread_t()
    unsafe pthread_create(&thread, nil, { unsafe Deadline.watch($0) }, nil)
  }()

  /// Runs `body`; when it takes longer than `seconds`, the process says what hung and aborts.
  public static func within<T>(seconds: Double, _ what: String, _ body: () throws -> T) rethrows -> T {
    _ = watchdog
    let number = nextNumber.add(1, ordering: .relaxed).newValue
    running.withLock { $0[number] = Entry(what: what, end: now() + seconds) }
    defer { running.withLock { $0[number] = nil } }
    return try body()
  }

  private static func watch(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    while true {
      sleep(1)
      let time = now()
      if let late = running.withLock({ $0.values.first { $0.end < time } }) {
        let text = Array("error: time limit passed, aborting: \(late.what)\n".utf8)
        _ = unsafe text.withUnsafeBytes { unsafe write(2, $0.baseAddress, $0.count) }
        abort()
      }
    }
  }

  static func now() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
