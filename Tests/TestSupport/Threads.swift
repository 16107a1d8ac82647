import Foundation
import Synchronization

/// Real threads, for tests of what happens beside each other.
public enum Threads {
  /// Runs `body` in `count` threads and waits for all; gives what they had to complain about.
  public static func run(_ count: Int, _ body: @escaping @Sendable (_ number: Int) -> String?) -> [String] {
    let complaints = Complaints()
    let group = DispatchGroup()
    for number in 0..<count {
      group.enter()
      let thread = Thread {
        if let complaint = body(number) { complaints.all.withLock { $0.append(complaint) } }
        group.leave()
      }
      thread.stackSize = 1 << 20
      thread.start()
    }
    group.wait()
    return complaints.all.withLock { $0 }
  }

  /// Lets others run for a while.
  public static func pause(microseconds: Int) { Thread.sleep(forTimeInterval: Double(microseconds) / 1e6) }

  private final class Complaints: Sendable {
    let all = Mutex<[String]>([])
  }
}

/// One thread beside the test's own.
public final class TestThread: Sendable {
  private let group = DispatchGroup()

  public init(_ body: @escaping @Sendable () -> Void) {
    group.enter()
    let thread = Thread { [group] in
      body()
      group.leave()
    }
    thread.start()
  }

  public func join() { group.wait() }
}
